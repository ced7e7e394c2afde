//! Reading request bodies: which parser a path belongs to, and what it finds.

mod route;

pub use route::ParserSet;

use super::{Api, ParseError, Parsed};

/// One body on its way in: fed chunk by chunk, asked once at its end.
#[derive(Debug)]
pub struct Intake {
    api: Api,
}

impl Intake {
    fn new(api: Api) -> Self {
        Self { api }
    }

    /// The API that the path named.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Takes the next chunk, of any size.
    ///
    /// # Errors
    /// None today: what is wrong with a body is said by [`Intake::finish`], so that it does not depend on chunking.
    pub fn push(&mut self, _chunk: &[u8]) -> Result<(), ParseError> {
        Ok(())
    }

    /// The body is complete.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub fn finish(self) -> Result<Parsed, ParseError> {
        Ok(Parsed::opaque(self.api))
    }

    /// The body was cut by the proxy: what is known so far.
    pub fn finish_cut(self) -> Parsed {
        Parsed::opaque(self.api)
    }
}
