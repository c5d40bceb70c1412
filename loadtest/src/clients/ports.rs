//! Ports to connect from, where the source address is chosen.
//!
//! To bind to an address and let the system choose the port means that it looks for one that nobody has, whatever that one
//! is connected to: with 15,000 taken it goes through thousands for each, seconds of CPU in all, and one that waits for its
//! end on another server (TIME_WAIT) counts as taken. So ports are given out here, one after the other; whether a pair of
//! addresses is free is seen when it is connected.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use tokio::net::{TcpSocket, TcpStream};

/// If the system does not say which: Linux's own default.
const USUAL: (u16, u16) = (32_768, 60_999);

/// The ports of this machine for outgoing connections.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    /// How many they are, at least one.
    count: u32,
    next: AtomicU32,
}

impl Ports {
    /// Those that the system says, from a random one on: another process goes its own way.
    pub fn of_this_machine() -> Self {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        Self::range(parse(&text).unwrap_or(USUAL), rand::random())
    }

    fn range((first, last): (u16, u16), start: u32) -> Self {
        Self { first, count: u32::from(last.saturating_sub(first)) + 1, next: AtomicU32::new(start) }
    }

    /// Connects from this address.
    ///
    /// # Errors
    /// The address is none of this machine, nobody listens at `addr`, or no port is free towards it (`AddrNotAvailable`).
    pub async fn connect(&self, source: IpAddr, addr: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..self.count {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Others of this machine that have the port with another peer are no obstacle.
            socket.set_reuseaddr(true)?;
            match socket.bind((source, self.take()).into()) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
                bound => bound?,
            }
            match socket.connect(addr).await {
                Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
                connected => return connected,
            }
        }
        Err(ErrorKind::AddrNotAvailable.into())
    }

    fn take(&self) -> u16 {
        let turn = self.next.fetch_add(1, Relaxed) % self.count;
        // Less than the number of ports.
        self.first + turn as u16
    }
}

fn parse(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    let (first, last) = (numbers.next()??, numbers.next()??);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
        let listener = tokio::net::TcpListener::bind((HERE, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[test]
    fn the_range_is_read_as_the_system_writes_it() {
        assert_eq!(parse("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!([parse(""), parse("7"), parse("9 8"), parse("a b")], [None; 4]);
    }

    #[test]
    fn ports_are_given_out_in_turn_and_again() {
        let ports = Ports::range((10, 12), u32::MAX);
        let taken: Vec<u16> = (0..4).map(|_| ports.take()).collect();
        assert!(taken.iter().all(|port| (10..=12).contains(port)), "{taken:?}");
        assert_eq!(Ports::range((65_535, 65_535), 5).take(), 65_535);
    }

    #[tokio::test]
    async fn a_port_serves_once_for_each_server() {
        let ((_one, one), (_two, two)) = (listener().await, listener().await);
        // One that was free a moment ago.
        let (free, addr) = listener().await;
        drop(free);
        let ports = Ports::range((addr.port(), addr.port()), 0);
        let first = ports.connect(HERE, one).await.unwrap();
        assert_eq!(first.local_addr().unwrap(), addr);
        let second = ports.connect(HERE, two).await.unwrap();
        assert_eq!(second.local_addr().unwrap(), addr);
        let error = ports.connect(HERE, one).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    }
}
