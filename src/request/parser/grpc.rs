//! Requests of vLLM's gRPC API.
//!
//! `GenerateRequest`: 2 tokenized (1 original text, 2 input ids) or 3 text, 4 sampling params (8 max tokens), 5 stream.
//! `EmbedRequest`: 2 tokenized. There is no model name.

use super::inputs::MAX_IDS;
use super::rope::Rope;
use crate::request::protobuf::{Delimited, Fields, Frames};
use crate::request::{Api, ParseError, Parsed, Prompt, SegmentKind, TextPrompt};

const BAD: &str = "invalid or unsupported gRPC payload";

/// One request frame on its way in.
#[derive(Debug)]
pub(super) struct GrpcBody {
    frames: Frames,
    request: Request,
}

#[derive(Debug)]
struct Request {
    api: Api,
    ids: Vec<u32>,
    bad_id: bool,
    text: Rope,
    texts: Vec<TextPrompt>,
    in_text: bool,
    stream: bool,
    cap: Option<u32>,
}

impl GrpcBody {
    pub(super) fn new(api: Api) -> Self {
        let request = Request {
            api,
            ids: Vec::new(),
            bad_id: false,
            text: Rope::default(),
            texts: Vec::new(),
            in_text: false,
            stream: false,
            cap: None,
        };
        Self { frames: Frames::default(), request }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        // A bad frame stays with the reader, and `finish` says it.
        let _ = self.frames.push(chunk, &mut self.request);
    }

    pub(super) fn finish(self) -> Result<Parsed, ParseError> {
        let api = self.request.api;
        let invalid = |problem: &str| ParseError::Invalid { api, problem: problem.to_owned() };
        if self.frames.complete() != Some(1) || self.request.bad_id {
            return Err(invalid(BAD));
        }
        let parsed = self.finish_cut();
        match (&parsed.prompt, api) {
            (Prompt::None, Api::VllmGrpcEmbed) => Err(invalid("must have tokenized field")),
            (Prompt::None, _) => Err(invalid("must have tokenized or text field")),
            _ => Ok(parsed),
        }
    }

    pub(super) fn finish_cut(self) -> Parsed {
        let mut request = self.request;
        if request.in_text {
            request.text.text_cut(SegmentKind::Input);
            request.texts.push(request.text.take());
        }
        let mut parsed = Parsed::opaque(request.api);
        parsed.stream = request.stream;
        parsed.max_output_tokens = request.cap;
        request.texts.retain(|text| !text.segments.is_empty());
        parsed.prompt = match (request.ids.is_empty(), request.texts.pop()) {
            (false, _) => Prompt::Tokens(vec![request.ids]),
            (true, Some(text)) => Prompt::Text(vec![text]),
            (true, None) => Prompt::None,
        };
        parsed
    }
}

impl Fields for Request {
    fn frame(&mut self) {}

    fn delimited(&mut self, path: &[u32]) -> Delimited {
        match (self.api, path) {
            (_, [2]) | (Api::VllmGrpcGenerate, [4]) => Delimited::Message,
            (_, [2, 2]) => {
                self.ids.clear();
                Delimited::Packed
            }
            (Api::VllmGrpcGenerate, [3]) => {
                self.texts.clear();
                self.text.text_start(0);
                self.in_text = true;
                Delimited::Bytes
            }
            _ => Delimited::Skip,
        }
    }

    fn varint(&mut self, path: &[u32], value: u64) {
        match (self.api, path) {
            (_, [2, 2]) => match u32::try_from(value) {
                Ok(id) if self.ids.len() < MAX_IDS => self.ids.push(id),
                _ => self.bad_id = true,
            },
            (Api::VllmGrpcGenerate, [4, 8]) => self.cap = Some(u32::try_from(value).unwrap_or(u32::MAX)),
            (Api::VllmGrpcGenerate, [5]) => self.stream = value != 0,
            _ => {}
        }
    }

    fn bytes(&mut self, _path: &[u32], piece: &[u8], last: bool) {
        self.text.text_piece(piece);
        if last {
            self.text.text_end(SegmentKind::Input, 0);
            self.in_text = false;
            let text = self.text.take();
            self.texts.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field: its tag, and a varint or the bytes with their length. Lengths stay below 128.
    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }
    fn nested(field: u8, inner: &[u8]) -> Vec<u8> {
        [&[field << 3 | 2, inner.len() as u8], inner].concat()
    }
    fn frame(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }
    fn read(api: Api, body: &[u8], cut: usize) -> Result<Parsed, ParseError> {
        let mut grpc = GrpcBody::new(api);
        body.chunks(cut).for_each(|chunk| grpc.push(chunk));
        grpc.finish()
    }

    #[test]
    fn token_ids_stream_and_cap_are_read_across_any_border() {
        let tokenized = [nested(1, b"words"), nested(2, &[1, 0xac, 0x02, 7])].concat();
        let message = [
            nested(1, b"request-id"),
            nested(2, &tokenized),
            nested(4, &[number(1, 3), number(8, 9)].concat()),
            number(5, 1),
            nested(7, b"\xff\xff"),
        ]
        .concat();
        let body = frame(&message);
        for cut in 1..=body.len() {
            let parsed = read(Api::VllmGrpcGenerate, &body, cut).unwrap();
            assert_eq!(parsed.prompt, Prompt::Tokens(vec![vec![1, 300, 7]]));
            assert_eq!((parsed.stream, parsed.max_output_tokens, parsed.model), (true, Some(9), None));
        }
        let embed = frame(&[nested(1, b"id"), nested(2, &nested(2, &[4, 5]))].concat());
        assert_eq!(read(Api::VllmGrpcEmbed, &embed, 3).unwrap().prompt, Prompt::Tokens(vec![vec![4, 5]]));
    }

    #[test]
    fn a_text_is_hashed_as_one_input() {
        let body = frame(&nested(3, b"hello"));
        for cut in 1..=body.len() {
            let parsed = read(Api::VllmGrpcGenerate, &body, cut).unwrap();
            let Prompt::Text(prompts) = parsed.prompt else { panic!("no text") };
            assert_eq!(prompts[0].blocks, [xxhash_rust::xxh64::xxh64(b"hello", 0)]);
        }
    }

    #[test]
    fn frames_that_are_short_compressed_or_torn_are_refused() {
        let good = frame(&nested(3, b"hello"));
        let mut compressed = good.clone();
        compressed[0] = 1;
        let table = [
            Vec::new(),
            good[..4].to_vec(),
            good[..good.len() - 1].to_vec(),
            compressed,
            frame(&[0x1a, 0x7f, b'a']),
            frame(&[0x28]),
            frame(&[0x28, 0x80]),
            frame(&[0x07]),
            frame(&[0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for body in table {
            for cut in [1, 2, 100] {
                let refused = read(Api::VllmGrpcGenerate, &body, cut).unwrap_err().to_string();
                assert_eq!(refused, "invalid gRPC generate request: invalid or unsupported gRPC payload");
            }
        }
        let empty = read(Api::VllmGrpcEmbed, &frame(b""), 1).unwrap_err().to_string();
        assert_eq!(empty, "invalid gRPC embed request: must have tokenized field");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_the_same_answer_in_any_chunks(
            message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
            cut in 1usize..20,
        ) {
            let body = frame(&message);
            let whole = read(Api::VllmGrpcGenerate, &body, body.len());
            proptest::prop_assert_eq!(read(Api::VllmGrpcGenerate, &body, cut), whole);
        }
    }
}
