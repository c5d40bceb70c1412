//! The socket of a WebSocket connection, plain or with TLS: what can be read and written now, without waiting.
//!
//! The shard writes from outside of the connection's task, so nothing here needs a task; [`Socket`] is also what hyper reads
//! the upgrade request from. TLS is done by hand for that: the state of rustls between the socket and the caller.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice, Read as _, Write as _},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::ServerConnection;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A socket whose TLS handshake, if it has TLS, is over.
pub(in crate::transport) enum Socket {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// TLS over a socket. Idle, it holds a read buffer of 4 KiB of rustls and the keys.
pub(in crate::transport) struct Tls {
    tcp: TcpStream,
    session: RefCell<ServerConnection>,
    /// Text that was decrypted has not been taken yet: the socket need not tell of more.
    unread: Cell<bool>,
}

impl Socket {
    pub(in crate::transport) fn new(tcp: TcpStream, session: Option<Box<ServerConnection>>) -> Self {
        match session {
            None => Self::Plain(tcp),
            // What the client sent right behind its handshake may be decrypted already.
            Some(session) => {
                Self::Tls(Box::new(Tls { tcp, session: RefCell::new(*session), unread: Cell::new(true) }))
            }
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.tcp,
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) if tls.unread.get() => Poll::Ready(Ok(())),
            _ => self.tcp().poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }

    /// Cancel: safe.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.tcp().writable().await
    }

    /// Reads what is there. A part of `buffer` is all there is: the socket is then not asked again before it tells of
    /// more, which saves a call that would only say so. 0: the client has ended its side.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => read_partly(tcp, buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// Writes from the slices, if what was written before has left. With TLS the socket may not have taken all of it:
    /// [`Self::flush`] tells.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => match slices {
                [only] => tcp.try_write(only),
                _ => tcp.try_write_vectored(slices),
            },
            Self::Tls(tls) => tls.write(slices),
        }
    }

    /// Writes what TLS still holds. `WouldBlock`: the socket did not take all of it.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(&mut tls.session.borrow_mut()),
        }
    }

    /// Whether TLS has something of its own to say, as the answer to a change of keys.
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.borrow().wants_write())
    }

    /// Says that nothing follows; to be flushed before [`Self::shut_down`].
    pub(super) fn say_end(&self) {
        if let Self::Tls(tls) = self {
            tls.session.borrow_mut().send_close_notify();
        }
    }

    /// Ends our side.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        SockRef::from(self.tcp()).shutdown(Shutdown::Write)
    }

    /// Reads until the client has ended its side, and looks at none of it.
    ///
    /// Cancel: safe.
    pub(super) async fn ignore_rest(&self) -> io::Result<()> {
        let mut ignored = [0; 1024];
        loop {
            self.tcp().readable().await?;
            match self.tcp().try_read(&mut ignored) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Tls {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let session = &mut *self.session.borrow_mut();
        let mut filled = 0;
        loop {
            match session.reader().read(&mut buffer[filled..]) {
                // The client has said its end, or gone without: the frames tell whether something is missing.
                Ok(0) => return self.took(filled, filled > 0),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.took(filled, filled > 0);
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if filled == buffer.len() {
                return self.took(filled, true);
            }
            if let Err(error) = self.receive(session) {
                let waits = error.kind() == io::ErrorKind::WouldBlock;
                // An error that follows good frames comes again with the next read.
                self.unread.set(filled > 0 && !waits);
                return if filled > 0 { Ok(filled) } else { Err(error) };
            }
        }
    }

    /// Takes in what the socket has.
    fn receive(&self, session: &mut ServerConnection) -> io::Result<()> {
        session.read_tls(&mut Partly(&self.tcp))?;
        if let Err(error) = session.process_new_packets() {
            // The alert that says why, as far as the socket takes it.
            let _ = self.flush(session);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(())
    }

    fn took(&self, size: usize, unread: bool) -> io::Result<usize> {
        self.unread.set(unread);
        Ok(size)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let session = &mut *self.session.borrow_mut();
        self.flush(session)?;
        let written = session.writer().write_vectored(slices)?;
        match self.flush(session) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(written),
        }
    }

    fn flush(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Partly(&self.tcp))?;
        }
        Ok(())
    }
}

/// The socket as rustls wants it.
struct Partly<'a>(&'a TcpStream);

impl io::Read for Partly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_partly(self.0, buffer)
    }
}

impl io::Write for Partly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads; after a part of `buffer` the socket counts as empty until it tells of more.
fn read_partly(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut partly = None;
    let read = tcp.try_io(Interest::READABLE, || {
        let size = (&*SockRef::from(tcp)).read(buffer)?;
        if size == 0 || size == buffer.len() {
            return Ok(size);
        }
        partly = Some(size);
        Err(io::ErrorKind::WouldBlock.into())
    });
    partly.map_or(read, Ok)
}

/// For hyper, until the upgrade.
impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = match self.get_mut() {
            Self::Plain(tcp) => return Pin::new(tcp).poll_read(cx, buf),
            tls => tls,
        };
        loop {
            ready!(this.poll_read_ready(cx))?;
            match this.read(buf.initialize_unfilled()) {
                Ok(size) => {
                    buf.advance(size);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Socket {
    /// Tries until it is not for the socket to wait for.
    fn poll_until<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&Self) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_write_ready(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_until(cx, |socket| socket.write(&[IoSlice::new(bytes)]))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_until(cx, Self::flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_end();
        ready!(self.poll_until(cx, Self::flush))?;
        Poll::Ready(self.shut_down())
    }
}
