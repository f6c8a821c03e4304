//! The secret by which the server recognises a client that comes back.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Bytes of the secret: 2^128 values can't be guessed.
const SESSION_BYTES: usize = 16;

/// Proves that a connection belongs to the same client as an earlier one.
///
/// It is a password: it compares in constant time and never appears in a log.
#[derive(Clone, Copy, Eq)]
pub struct Session([u8; SESSION_BYTES]);

impl Session {
    /// Draws a new session from the system's random source.
    ///
    /// # Errors
    /// If the system has no random source, which no running system lacks.
    pub fn random() -> Result<Session, getrandom::Error> {
        let mut bytes = [0; SESSION_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Session(bytes))
    }

    /// Parses what [`to_hex`](Session::to_hex) returns. `None` for anything else.
    pub fn parse(hex: &str) -> Option<Session> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != 2 * SESSION_BYTES || !hex.bytes().all(lower_hex) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(|number| Session(number.to_be_bytes()))
    }

    /// Returns the secret as 32 lower-case hexadecimal digits, for this client alone.
    pub fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

impl PartialEq for Session {
    /// Compares every byte, so that the time taken does not reveal where two differ.
    fn eq(&self, other: &Session) -> bool {
        self.0.iter().zip(other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

impl Hash for Session {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(secret)")
    }
}
