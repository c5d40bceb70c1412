//! What a client shows.

use std::fmt;

/// A secret that a client shows to prove who it is. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// Wraps what a client sent; an empty text is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The token of an `Authorization` header or gRPC metadata of that name (RFC 6750 section 2.1).
    #[must_use]
    pub fn of_header(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") { Self::new(token.trim()) } else { None }
    }

    /// The `access_token` of a query (RFC 6750 section 2.3), for browsers, which cannot set headers.
    #[must_use]
    pub fn of_query(query: &str) -> Option<Self> {
        // A JWT has only characters that are never encoded.
        query.split('&').find_map(|pair| Self::new(pair.strip_prefix("access_token=")?))
    }

    /// The token itself: to be checked only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_standards_put_them_and_never_shown() {
        let token = Token::new("a.b.c");
        assert_eq!(Token::of_header("Bearer a.b.c"), token);
        assert_eq!(Token::of_header("bearer  a.b.c"), token);
        assert_eq!(Token::of_query("x=1&access_token=a.b.c&y"), token);
        for none in ["", "a.b.c", "Basic a.b.c", "Bearer ", "Bearer"] {
            assert_eq!(Token::of_header(none), None, "{none:?}");
        }
        for none in ["", "access_token=", "token=a", "xaccess_token=a"] {
            assert_eq!(Token::of_query(none), None, "{none:?}");
        }
        assert_eq!(format!("{token:?}"), "Some(Token(***))");
    }
}
