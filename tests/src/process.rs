//! The real binary as a process: for signals, crashes, logs, and metrics of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{DEADLINE, gateway::Addrs, within};

/// A running `streamgate serve`. Dropping it kills it; it dies, too, when this process does.
pub struct GatewayProcess {
    process: Child,
    /// Kills the gateway when its standard input closes, which happens however this process ends.
    watcher: Child,
    addrs: Addrs,
    dir: PathBuf,
    log: watch::Receiver<Vec<String>>,
}

impl GatewayProcess {
    /// Starts a gateway with this configuration file, on ports that the system chooses, and waits until it says where
    /// it listens.
    pub async fn start(yaml: &str) -> Self {
        Self::start_with(yaml, &[]).await
    }

    /// As [`Self::start`], with more flags of `serve`; later ones do not override the harness's addresses.
    pub async fn start_with(yaml: &str, flags: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("streamgate-node-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).expect("create the gateway's directory");
        let file = dir.join("streamgate.yaml");
        fs::write(&file, yaml).expect("write the configuration");
        let mut process = command()
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .args(["--ws-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the gateway");
        let watcher = watcher_of(process.id());
        let (banner, log) = (lines(process.stdout.take()), lines(process.stderr.take()));
        let mut gateway = Self { process, watcher, addrs: NOWHERE, dir, log };
        gateway.addrs = gateway.greeting(banner).await;
        gateway
    }

    /// Where it listens.
    #[must_use]
    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes its configuration file anew, for [`Self::sighup`].
    pub fn rewrite_config(&self, yaml: &str) {
        fs::write(self.dir.join("streamgate.yaml"), yaml).expect("write the configuration");
    }

    /// Kills it at once, as a crash does.
    pub fn kill9(&mut self) {
        // The watcher first: it must not kill whoever gets the process id next.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Asks it to drain and end.
    pub fn sigterm(&self) {
        self.signal("-TERM");
    }

    /// Asks it to read its configuration again.
    pub fn sighup(&self) {
        self.signal("-HUP");
    }

    /// Stops it from running: its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("look after the gateway") {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "the gateway does not end:\n{}", self.log_text());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The lines of its log up to now.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// [`Self::log`] as one text.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// Waits for a line of the log, and answers the first that `wanted` takes.
    pub async fn logged(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut log = self.log.clone();
        let find = |lines: &Vec<String>| lines.iter().find(|line| wanted(line)).cloned();
        let found = tokio::time::timeout(DEADLINE, log.wait_for(|lines| find(lines).is_some())).await;
        match found {
            Ok(Ok(lines)) => find(&lines).expect("just seen"),
            _ => panic!("{what} is not in the log:\n{}", self.log_text()),
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.expect("run kill").success(), "kill {signal}");
    }

    async fn greeting(&mut self, mut banner: watch::Receiver<Vec<String>>) -> Addrs {
        let whole =
            within("the gateway's greeting", banner.wait_for(|lines| addrs_of(lines).is_some())).await;
        match whole {
            Ok(lines) => addrs_of(&lines).expect("just seen"),
            Err(_) => panic!("the gateway ended: {}\n{}", self.ended_now(), self.log_text()),
        }
    }

    fn ended_now(&mut self) -> String {
        self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        self.kill9();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs the binary with these arguments to its end, for at most [`DEADLINE`] (then it is killed).
#[must_use]
pub fn run(args: &[&str]) -> Output {
    run_with(args, b"", &[])
}

/// As [`run`], with this standard input (a pipe) and more variables in its environment.
#[must_use]
pub fn run_with(args: &[&str], input: &[u8], variables: &[(&str, &str)]) -> Output {
    let mut child = command()
        .args(args)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start streamgate");
    let mut watcher = watcher_of(child.id());
    let (mut stdin, input) = (child.stdin.take().expect("piped"), input.to_vec());
    // It need not read it.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let err = thread::spawn(move || read_all(&mut err));
    let out = thread::spawn(move || read_all(&mut out));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("look after streamgate") {
            break status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(5));
    };
    let _ = watcher.kill();
    let _ = watcher.wait();
    Output { status, stdout: out.join().expect("read"), stderr: err.join().expect("read") }
}

/// The path of the `streamgate` binary, built if it is missing or older than its source. `STREAMGATE_BIN` names
/// another one.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("STREAMGATE_BIN").map_or_else(build, PathBuf::from))
}

/// Builds with the profile and into the target directory of this program; cargo knows what is stale.
fn build() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let profile_dir = profile_dir_of(&program);
    let target_dir = profile_dir.parent().expect("the profile is in the target directory");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--package", "streamgate", "--bin", "streamgate", "--profile", profile])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .env("CARGO_TARGET_DIR", target_dir);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_this_package) {
            command.env_remove(name);
        }
    }
    let mut cargo = command.spawn().expect("run cargo");
    let status = wait_aloud(&mut cargo, profile);
    assert!(status.success(), "the gateway does not build; STREAMGATE_BIN may name one that is built");
    profile_dir.join("streamgate")
}

/// What `cargo test` and `cargo run` tell of this program's package. The build script of `ring` asks to run again when
/// it changes: with it, this build and the one before it would take turns in building the gateway anew.
fn is_of_this_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") || variable == "OUT_DIR"
}

/// A test is target/<profile>/deps/<test>, the load generator target/<profile>/loadtest.
fn profile_dir_of(program: &Path) -> &Path {
    let dir = program.parent().expect("a program is in a directory");
    if dir.ends_with("deps") { dir.parent().expect("deps is in target/<profile>") } else { dir }
}

/// Waits for cargo, and says so if it has more to do than to look: a release build takes minutes.
fn wait_aloud(cargo: &mut Child, profile: &str) -> ExitStatus {
    let start = Instant::now();
    let mut said = false;
    loop {
        if let Some(status) = cargo.try_wait().expect("look after cargo") {
            return status;
        }
        if !said && start.elapsed() > Duration::from_secs(2) {
            said = true;
            eprintln!("building the gateway (profile {profile}) ...");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The binary, in an environment without settings of this process's.
fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("STREAMGATE_")) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

const NOWHERE: Addrs = {
    let none = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
    Addrs { websocket: none, grpc: none, admin: none }
};

/// Reads the addresses of the greeting, once it is complete.
fn addrs_of(lines: &[String]) -> Option<Addrs> {
    let after = |name: &str| {
        let line = lines.iter().find_map(|line| line.trim_start().strip_prefix(name))?;
        let url = line.split_whitespace().next()?;
        let rest = url.split_once("//").map_or(url, |(_, rest)| rest);
        rest.split('/').next()?.parse().ok()
    };
    Some(Addrs { websocket: after("WebSocket ")?, grpc: after("gRPC ")?, admin: after("admin ")? })
}

/// The lines of a pipe as they come; closed at its end.
fn lines(pipe: Option<impl Read + Send + 'static>) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    let pipe = pipe.expect("a piped stream");
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            sender.send_modify(|lines| lines.push(line));
        }
    });
    receiver
}

fn read_all(pipe: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("read a pipe");
    bytes
}

/// Waits for the end of this process, then kills `pid`.
fn watcher_of(pid: u32) -> Child {
    Command::new("sh")
        .args(["-c", "read -r _; kill -9 \"$0\"", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the watcher")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_found_from_a_test_and_from_a_program() {
        assert_eq!(profile_dir_of(Path::new("/t/debug/deps/e2e-1234")), Path::new("/t/debug"));
        assert_eq!(profile_dir_of(Path::new("/t/release/loadtest")), Path::new("/t/release"));
    }
}
