//! Reading request bodies: which parser a path belongs to, and what it finds.

mod conversation;
mod document;
mod fields;
mod grpc;
mod inputs;
mod rope;
mod route;
#[cfg(test)]
mod tests;

pub use route::ParserSet;

use super::json::Lexer;
use super::{Api, ParseError, Parsed};
use document::Document;
use grpc::GrpcBody;

/// One body on its way in: fed chunk by chunk, asked once at its end.
#[derive(Debug)]
pub struct Intake {
    api: Api,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    /// The body is not read.
    Opaque,
    Json(Box<Json>),
    Grpc(Box<GrpcBody>),
}

#[derive(Debug)]
struct Json {
    lexer: Lexer,
    document: Document,
}

impl Intake {
    fn new(api: Api) -> Self {
        let reader = match api {
            Api::Opaque => Reader::Opaque,
            Api::VllmGrpcGenerate | Api::VllmGrpcEmbed => Reader::Grpc(Box::new(GrpcBody::new(api))),
            _ => Reader::Json(Box::new(Json { lexer: Lexer::default(), document: Document::new(api) })),
        };
        Self { api, reader }
    }

    /// The API that the path named.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Takes the next chunk, of any size.
    ///
    /// # Errors
    /// None today: what is wrong with a body is said by [`Intake::finish`], so that it does not depend on chunking.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ParseError> {
        match &mut self.reader {
            Reader::Opaque => {}
            Reader::Grpc(grpc) => grpc.push(chunk),
            Reader::Json(json) => {
                // A problem stays with the scanner, which says it again at the end.
                let _ = json.lexer.push(chunk, &mut json.document);
            }
        }
        Ok(())
    }

    /// The body is complete.
    ///
    /// # Errors
    /// What is wrong with the body. A request to count tokens is never refused: the engine is asked.
    pub fn finish(self) -> Result<Parsed, ParseError> {
        match self.reader {
            Reader::Opaque => Ok(Parsed::opaque(self.api)),
            Reader::Grpc(grpc) => grpc.finish(),
            Reader::Json(json) => {
                let Json { mut lexer, mut document } = *json;
                let scanned = lexer.finish(&mut document);
                if self.api == Api::CountTokens {
                    return Ok(document.finish_cut());
                }
                document.finish(scanned)
            }
        }
    }

    /// The body was cut by the proxy: what is known so far. Of a text that was cut, the whole blocks.
    pub fn finish_cut(self) -> Parsed {
        match self.reader {
            Reader::Opaque => Parsed::opaque(self.api),
            Reader::Grpc(grpc) => grpc.finish_cut(),
            Reader::Json(json) => json.document.finish_cut(),
        }
    }
}
