use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Builds the document, to compare it with the one that `serde_json` builds.
#[derive(Default)]
struct Builder {
    open: Vec<(Value, Option<String>)>,
    key: Option<String>,
    text: Vec<u8>,
    root: Option<Value>,
    long_key: bool,
}

impl Builder {
    fn value(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some((Value::Array(items), _)) => items.push(value),
            Some((Value::Object(map), _)) => {
                map.insert(self.key.take().unwrap(), value);
            }
            Some(_) => unreachable!(),
        }
    }
}

impl Sink for Builder {
    fn open(&mut self, container: Container) {
        let empty = match container {
            Container::Array => Value::Array(Vec::new()),
            Container::Object => Value::Object(Map::new()),
        };
        let key = self.key.take();
        self.open.push((empty, key));
    }
    fn close(&mut self) {
        let (value, key) = self.open.pop().unwrap();
        self.key = key;
        self.value(value);
    }
    fn key(&mut self, name: &[u8], hash: u64, len: usize) {
        self.long_key |= len > MAX_KEY;
        if len <= MAX_KEY {
            assert_eq!((hash, len), (xxhash_rust::xxh64::xxh64(name, 0), name.len()));
        }
        self.key = Some(String::from_utf8(name.to_vec()).unwrap());
    }
    fn string_start(&mut self, _at: usize) {
        self.text.clear();
    }
    fn string_piece(&mut self, piece: &[u8]) {
        self.text.extend_from_slice(piece);
    }
    fn string_end(&mut self, _end: usize) {
        let text = String::from_utf8(std::mem::take(&mut self.text)).unwrap();
        self.value(text.into());
    }
    fn number(&mut self, raw: &[u8]) {
        self.value(serde_json::from_slice(raw).unwrap_or(Value::Null));
    }
    fn literal(&mut self, literal: Literal) {
        self.value(match literal {
            Literal::Null => Value::Null,
            Literal::True => true.into(),
            Literal::False => false.into(),
        });
    }
}

fn scan(bytes: &[u8], cut: usize) -> Result<(Value, bool), Problem> {
    let (mut lexer, mut sink) = (Lexer::default(), Builder::default());
    for chunk in bytes.chunks(cut.max(1)) {
        lexer.push(chunk, &mut sink)?;
    }
    lexer.finish(&mut sink)?;
    Ok((sink.root.unwrap(), sink.long_key))
}

/// Compares with `serde_json`, the deliberate differences aside.
fn agrees(bytes: &[u8], cut: usize) {
    let ours = scan(bytes, bytes.len());
    assert_eq!(scan(bytes, cut), ours, "in chunks of {cut}");
    match (serde_json::from_slice::<Value>(bytes), ours) {
        (Ok(theirs), Ok((value, long_key))) => assert!(long_key || value == theirs),
        (Err(_), Err(_)) => {}
        (Err(e), Ok(_)) => {
            let e = e.to_string();
            assert!(e.contains("out of range") || e.contains("recursion limit"), "{e}");
        }
        (Ok(_), Err(problem)) => panic!("refused: {problem:?} in {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300f64..1e300).prop_map(Value::from),
        "[a-z\"\\\\/\u{0}-\u{1f}é漢😀]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[a-zé\"]{0,70}", inner), 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Bytes that change what a text means.
fn telling() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => prop::sample::select(b"{}[]:,\"\\ \n\t0123456789.-+eEtfnu/bd\x00\x1f\x80\xc3\xed\xa0\xf0\xff".to_vec()),
        1 => any::<u8>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn texts_that_are_json_are_read_as_serde_json_reads_them(value in json(), pretty: bool, cut in 1usize..30) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        agrees(text.unwrap().as_bytes(), cut);
    }

    #[test]
    fn mutated_texts_are_accepted_exactly_where_serde_json_accepts_them(
        value in json(), cut in 1usize..30,
        changes in prop::collection::vec((any::<prop::sample::Index>(), telling(), 0u8..4), 1..4),
    ) {
        let mut bytes = serde_json::to_vec(&value).unwrap();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                _ if at == bytes.len() => bytes.push(byte),
                2 => bytes[at] = byte,
                _ => drop(bytes.remove(at)),
            }
        }
        agrees(&bytes, cut);
    }

    #[test]
    fn escapes_and_wide_characters_agree(
        inside in prop::collection::vec(prop::sample::select(vec![
            &b"\\u"[..], b"d83d", b"de00", b"D8", b"00", b"e9", b"\\n", b"\\\"", b"\\\\", b"\\x", b"a", b"\xc3", b"\xa9",
            b"\xf0\x9f", b"\x98\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\x01",
        ]), 0..10),
        cut in 1usize..9,
    ) {
        agrees(&[b"[\"", &inside.concat()[..], b"\"]"].concat(), cut);
    }

    #[test]
    fn numbers_agree(raw in "[-+0-9.eE]{1,12}", cut in 1usize..5) {
        agrees(raw.as_bytes(), cut);
        agrees(format!("[{raw}]").as_bytes(), cut);
    }
}

#[test]
fn the_deliberate_differences() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert!(scan(&nested(MAX_DEPTH), 7).is_ok());
    let refused = scan(&nested(MAX_DEPTH + 1), 7).unwrap_err();
    assert_eq!((refused.what, refused.offset), ("nested deeper than 512 levels", MAX_DEPTH));
    assert!(scan(b"1e999", 2).is_ok());
    assert!(scan(&[b'1'; MAX_NUMBER], 100).is_ok());
    assert_eq!(scan(&[b'1'; MAX_NUMBER + 1], 100), scan(&[b'1'; MAX_NUMBER + 1], 5000));
    assert!(scan(&[b'1'; MAX_NUMBER + 1], 100).is_err());
}

#[test]
fn long_runs_are_checked_to_their_end() {
    for at in [0, 15, 16, 17, 63, 64, 100, 999] {
        for bad in [0x1f, 0x80, 0xff] {
            let mut text = vec![b'a'; 1000];
            text[at] = bad;
            let text = [b"\"", &text[..], b"\""].concat();
            assert_eq!(scan(&text, text.len()).unwrap_err().offset, at + 1);
            agrees(&text, 13);
        }
    }
}
