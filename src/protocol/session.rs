//! The secret by which a client that comes back is known.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Bytes of the secret: nobody guesses one of 2^128.
const SESSION_BYTES: usize = 16;

/// Says that a connection belongs to the same client as an earlier one. It is a password, so it compares in constant time
/// and appears in no log.
#[derive(Clone, Copy, Eq)]
pub struct Session([u8; SESSION_BYTES]);

impl Session {
    /// A new one, from the system's random source.
    ///
    /// # Errors
    /// What the source says; a system that runs has one.
    pub fn random() -> Result<Session, getrandom::Error> {
        let mut bytes = [0; SESSION_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Session(bytes))
    }

    /// Takes what [`to_hex`](Session::to_hex) gave. `None` for anything else.
    pub fn parse(hex: &str) -> Option<Session> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != 2 * SESSION_BYTES || !hex.bytes().all(lower_hex) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(|number| Session(number.to_be_bytes()))
    }

    /// The secret itself, 32 lower-case hexadecimal digits, for the client alone.
    pub fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

impl PartialEq for Session {
    /// Looks at every byte, so that the time it takes says nothing about where two differ.
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
