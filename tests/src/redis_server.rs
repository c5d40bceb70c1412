//! A real `redis-server` for a test: on 127.0.0.1, on a port that the system picked, gone when the test is.
//!
//! Owns: the process, its directory, and a watcher that kills it if the test process dies without dropping it.
//! Everything here blocks for some milliseconds and panics when something is wrong: the panic is the test's report.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test harness the panic is the report")]

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::certificates::{Authority, Identity};

/// How long a server may take to start.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Others may take the picked port before the server does.
const PORT_ATTEMPTS: usize = 10;

/// How to start a server.
#[derive(Debug, Clone, Default)]
pub struct RedisServerOptions {
    args: Vec<String>,
    password: Option<String>,
    tls: Option<ServerTls>,
    /// Lines of the configuration of a Sentinel.
    sentinel: Option<Vec<String>>,
    cluster: bool,
}

#[derive(Debug, Clone)]
struct ServerTls {
    ca_file: PathBuf,
    identity: Identity,
    auth_clients: bool,
}

impl RedisServerOptions {
    /// Adds arguments of `redis-server`, such as `--appendonly yes`, one word each. They come after, and so override,
    /// `--save "" --appendonly no`.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Requires a password of the default user.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Makes it a Sentinel with these lines in its configuration.
    #[must_use]
    pub fn sentinel(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.sentinel = Some(lines.into_iter().collect());
        self
    }

    /// Makes it a server of a Cluster, with a bus port that the system picks as well: the default, 10,000 above the port, may
    /// be beyond the last one.
    #[must_use]
    pub fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// Speaks TLS on a port beside the plain one, as `identity`; if `auth_clients`, only with clients that `authority`
    /// has signed.
    #[must_use]
    pub fn tls(mut self, authority: &Authority, identity: &Identity, auth_clients: bool) -> Self {
        let (ca_file, identity) = (authority.ca_file(), identity.clone());
        self.tls = Some(ServerTls { ca_file, identity, auth_clients });
        self
    }
}

/// A running (or killed) `redis-server`. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisServerOptions,
    port: u16,
    /// 0 without TLS.
    tls_port: u16,
    /// 0 outside of a Cluster.
    bus_port: u16,
    dir: PathBuf,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    server: Child,
    /// Kills the server when its standard input closes, which happens however this process ends.
    watcher: Child,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    #[must_use]
    pub fn start(options: RedisServerOptions) -> Self {
        let dir = std::env::temp_dir().join(format!("streamgate-redis-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).expect("create the server's directory");
        let mut server = Self { options, port: 0, tls_port: 0, bus_port: 0, dir, process: None };
        for _ in 0..PORT_ATTEMPTS {
            server.port = free_port();
            server.tls_port = server.options.tls.as_ref().map_or(0, |_| free_port());
            server.bus_port = if server.options.cluster { free_port() } else { 0 };
            if server.spawn() {
                return server;
            }
        }
        panic!("no free port for redis-server after {PORT_ATTEMPTS} attempts");
    }

    /// Starts a server with the default options.
    #[must_use]
    pub fn start_default() -> Self {
        Self::start(RedisServerOptions::default())
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it speaks TLS.
    #[must_use]
    pub fn tls_addr(&self) -> SocketAddr {
        assert_ne!(self.tls_port, 0, "started without TLS");
        (Ipv4Addr::LOCALHOST, self.tls_port).into()
    }

    /// Its directory, with its data if it keeps any.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").server.id()
    }

    /// Kills it at once, as a crash does. Its port stays its own for [`restart`](Self::restart).
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The watcher first: it must not kill whoever gets the process id next.
            let _ = process.watcher.kill();
            let _ = process.watcher.wait();
            let _ = process.server.kill();
            let _ = process.server.wait();
        }
    }

    /// Kills it if it runs and starts it again on the same port, in the same directory.
    pub fn restart(&mut self) {
        self.kill9();
        assert!(self.spawn(), "port {} was taken by somebody else", self.port);
    }

    /// Cuts about so many bytes off the end of the append-only file of a server that was killed, as a loss of power does to
    /// what was not synced.
    ///
    /// What is left ends with a whole transaction. With one that was cut in two, Redis 7.0 was seen to bring back at its second
    /// start what was missing after the first. That it keeps the half and completes it later is inferred, not verified.
    ///
    /// # Panics
    /// The server runs, or has no such file.
    pub fn lose_end_of_file(&self, bytes: u64) {
        const END: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
        assert!(self.process.is_none(), "the server runs");
        let files = fs::read_dir(self.dir.join("appendonlydir")).expect("an append-only file");
        let paths = files.map(|file| file.expect("read the directory").path());
        let newest = paths.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max();
        let path = newest.expect("an incremental file");
        let mut text = fs::read(&path).expect("read the append-only file");
        text.truncate(text.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX)));
        let whole = text.windows(END.len()).rposition(|window| window == END).map_or(0, |at| at + END.len());
        text.truncate(whole);
        fs::write(&path, text).expect("cut the append-only file");
    }

    /// Stops it from running (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Runs `redis-cli` with these arguments and answers what it printed, without the last line end.
    ///
    /// # Panics
    /// It failed.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|error| panic!("redis-cli {args:?}: {error}"))
    }

    /// As [`cli`](Self::cli), with a server that may be gone or close the connection: whoever demotes a master closes
    /// those of all its clients.
    ///
    /// # Errors
    /// What `redis-cli` said.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.args(args).output().expect("run redis-cli");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }

    /// Runs commands, one a line, over one connection; answers the line that each printed.
    pub fn pipe(&self, commands: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut lines = commands.into_iter().collect::<Vec<_>>().join("\n");
        lines.push('\n');
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run redis-cli");
        let mut stdin = child.stdin.take().expect("piped");
        let writer = thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = child.wait_with_output().expect("run redis-cli");
        writer.join().expect("the writer ends").expect("write to redis-cli");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Whether it was not killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// One section of `INFO`.
    #[must_use]
    pub fn info(&self, section: &str) -> HashMap<String, String> {
        let text = self.cli(&["INFO", section]);
        text.lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// CPU time of its main thread so far, user and system, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let info = self.info("cpu");
        ["used_cpu_user_main_thread", "used_cpu_sys_main_thread"]
            .iter()
            .map(|key| info[*key].parse::<f64>().expect("a number of seconds"))
            .sum()
    }

    /// Starts the process and waits for it; `false` if the port is taken.
    fn spawn(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        if let Some(lines) = &self.options.sentinel {
            command.arg(self.sentinel_file(lines)).arg("--sentinel");
        }
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--logfile", "redis.log"])
            .arg("--dir")
            .arg(&self.dir)
            .current_dir(&self.dir);
        if self.options.sentinel.is_none() {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password]);
        }
        if let Some(tls) = &self.options.tls {
            command
                .args(["--tls-port", &self.tls_port.to_string()])
                .arg("--tls-ca-cert-file")
                .arg(&tls.ca_file);
            command.arg("--tls-cert-file").arg(&tls.identity.cert_file);
            command.arg("--tls-key-file").arg(&tls.identity.key_file);
            command.args(["--tls-auth-clients", if tls.auth_clients { "yes" } else { "no" }]);
        }
        if self.options.cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-port", &self.bus_port.to_string()]);
        }
        let server = command
            .args(&self.options.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start redis-server (is it installed?)");
        let watcher = watcher_of(server.id(), &self.dir);
        self.process = Some(Process { server, watcher });
        self.wait_until_it_answers()
    }

    /// A Sentinel keeps what it learns in its file: written once, and anew if it has found its port taken.
    fn sentinel_file(&self, lines: &[String]) -> PathBuf {
        let file = self.dir.join(format!("sentinel-{}.conf", self.port));
        if !file.exists() {
            fs::write(&file, lines.join("\n") + "\n").expect("write the configuration");
        }
        file
    }

    fn wait_until_it_answers(&mut self) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            let process = self.process.as_mut().expect("just started");
            if let Some(status) = process.server.try_wait().expect("look after redis-server") {
                let log = self.log();
                self.kill9();
                if log.contains("Address already in use") {
                    return false;
                }
                panic!("redis-server ended with {status}:\n{log}");
            }
            if self.answers() {
                return true;
            }
            // There is no event to wait for.
            thread::sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not answer:\n{}", self.log());
    }

    /// Whether a PING is answered; a server that wants a password is up as well, one that loads its data is not.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect_timeout(&self.addr(), Duration::from_secs(1)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut start = [0; 5];
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut start).is_ok()
            && (start.starts_with(b"+PONG") || start.starts_with(b"-NOAU"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("redis.log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.expect("run kill").success(), "kill {signal}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill9();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Waits for the end of this process, then kills the server and removes its directory.
fn watcher_of(pid: u32, dir: &Path) -> Child {
    Command::new("sh")
        .args(["-c", "read -r _; kill -9 \"$0\"; rm -rf \"$1\"", &pid.to_string()])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the watcher")
}
