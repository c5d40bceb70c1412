//! Why a connection ends: what a peer's close frame says, and the close code of each violation.

use std::borrow::Cow;

use fastwebsockets::CloseCode;

/// A close frame's body (RFC 6455 section 5.5.1): a code that is legal on the wire and a UTF-8 reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Close code, 1000 to 4999 without the reserved ones.
    pub code: u16,
    /// Reason, at most 123 bytes.
    pub reason: Cow<'a, str>,
}

impl<'a> CloseFrame<'a> {
    /// Parses a close frame's payload; an empty one carries no code.
    ///
    /// # Errors
    /// A payload of one byte, a code that must not be sent, a reason that is not UTF-8.
    pub fn parse(payload: Cow<'a, [u8]>) -> Result<Option<Self>, ReadError> {
        let code = match *payload {
            [] => return Ok(None),
            [_] => return Err(ReadError::CloseWithoutCode),
            [high, low, ..] => u16::from_be_bytes([high, low]),
        };
        if !may_be_sent(code) {
            return Err(ReadError::CloseCode { got: code });
        }
        let reason = match payload {
            Cow::Borrowed(bytes) => std::str::from_utf8(&bytes[2..]).map(Cow::Borrowed),
            Cow::Owned(bytes) => std::str::from_utf8(&bytes[2..]).map(|text| Cow::Owned(text.to_owned())),
        };
        Ok(Some(Self { code, reason: reason.map_err(|_| ReadError::CloseReason)? }))
    }

    /// The same frame, independent of the buffer it was read from.
    #[must_use]
    pub fn into_owned(self) -> CloseFrame<'static> {
        CloseFrame { code: self.code, reason: Cow::Owned(self.reason.into_owned()) }
    }
}

/// Whether a close code may appear on the wire (RFC 6455 section 7.4 and IANA's registry, where 1014 "bad
/// gateway" came after the crate's table was written).
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    CloseCode::from(code).is_allowed() || code == 1014
}

/// A client broke RFC 6455 or a limit. The connection must be failed with [`ReadError::close_code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// RSV1 to RSV3 set although no extension was negotiated.
    #[error("reserved bits set in frame head byte {first:#04x}")]
    ReservedBits {
        /// First byte of the frame.
        first: u8,
    },
    /// Opcode 3 to 7 or 11 to 15.
    #[error("reserved opcode {got}")]
    ReservedOpcode {
        /// The opcode.
        got: u8,
    },
    /// A control frame without FIN.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame whose 7-bit length is above 125.
    #[error("control frame longer than 125 bytes")]
    ControlTooLong,
    /// A frame from a client without mask.
    #[error("unmasked client frame")]
    Unmasked,
    /// A 64-bit length with its top bit set.
    #[error("frame length {got} has its top bit set")]
    LengthTopBit {
        /// The length.
        got: u64,
    },
    /// A length that fits a shorter form (RFC 6455 section 5.2: the minimal form MUST be used).
    #[error("frame length {got} is not in its minimal form")]
    LengthNotMinimal {
        /// The length.
        got: u64,
    },
    /// A continuation frame although no message was begun.
    #[error("continuation frame without a message")]
    UnexpectedContinuation,
    /// A text or binary frame inside a fragmented message.
    #[error("new data frame inside a fragmented message")]
    ExpectedContinuation,
    /// A close frame with a payload of one byte.
    #[error("close frame with half a code")]
    CloseWithoutCode,
    /// A close code that must not be sent.
    #[error("illegal close code {got}")]
    CloseCode {
        /// The code.
        got: u16,
    },
    /// A close reason that is not UTF-8.
    #[error("close reason is not UTF-8")]
    CloseReason,
    /// A text message that is not UTF-8.
    #[error("text message is not UTF-8 at byte {offset}")]
    Utf8 {
        /// Offset in the assembled message of the first byte that is no part of a valid sequence.
        offset: usize,
    },
    /// The assembled message would pass the limit.
    #[error("message of at least {got} bytes, limit {limit}")]
    TooBig {
        /// Bytes of the message so far plus the frame's announced length.
        got: u64,
        /// The limit.
        limit: u32,
    },
    /// A data kind that the connection does not take (see [`super::reader::DataKinds`]).
    #[error("{} message not accepted here", if *text { "text" } else { "binary" })]
    KindNotAccepted {
        /// Whether the refused message was text.
        text: bool,
    },
}

impl ReadError {
    /// The close code to fail the connection with (RFC 6455 section 7.4.1): 1002, 1003, 1007 or 1009.
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Utf8 { .. } | Self::CloseReason => CloseCode::Invalid,
            Self::TooBig { .. } => CloseCode::Size,
            Self::KindNotAccepted { .. } => CloseCode::Unsupported,
            Self::ReservedBits { .. }
            | Self::ReservedOpcode { .. }
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::Unmasked
            | Self::LengthTopBit { .. }
            | Self::LengthNotMinimal { .. }
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::CloseWithoutCode
            | Self::CloseCode { .. } => CloseCode::Protocol,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Result<Option<CloseFrame<'static>>, ReadError> {
        let borrowed =
            CloseFrame::parse(Cow::Borrowed(payload)).map(|frame| frame.map(CloseFrame::into_owned));
        assert_eq!(CloseFrame::parse(Cow::Owned(payload.to_vec())), borrowed);
        borrowed
    }

    fn with_code(code: u16, reason: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), reason].concat()
    }

    #[test]
    fn empty_close_has_no_code() {
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn half_a_code_is_a_protocol_error() {
        let error = parse(b"\x03").unwrap_err();
        assert_eq!((error.clone(), error.close_code()), (ReadError::CloseWithoutCode, 1002));
    }

    #[test]
    fn legal_codes_pass_and_illegal_ones_do_not() {
        for code in (1000..=1003).chain(1007..=1014).chain([3000, 3512, 3999, 4000, 4999]) {
            let frame = parse(&with_code(code, "gr\u{fc}n".as_bytes())).unwrap().unwrap();
            assert_eq!((frame.code, &*frame.reason), (code, "gr\u{fc}n"));
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            let error = parse(&with_code(code, b"")).unwrap_err();
            assert_eq!((error.clone(), error.close_code()), (ReadError::CloseCode { got: code }, 1002));
        }
    }

    #[test]
    fn reason_must_be_utf8() {
        let error = parse(&with_code(1000, b"ok\xc3")).unwrap_err();
        assert_eq!((error.clone(), error.close_code()), (ReadError::CloseReason, 1007));
    }
}
