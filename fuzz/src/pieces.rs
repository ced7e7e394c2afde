//! Inputs taken apart: a few bytes that choose, the rest as text in pieces.

/// Splits off the first byte; 0 where there is none.
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Cuts `data` into pieces: below 128 `how` is their size (0: one piece), from 128 on it seeds sizes that vary.
pub fn pieces(how: u8, mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(how) << 16 | 1;
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let size = match how {
            0 => data.len(),
            1..128 => usize::from(how),
            _ => varying(&mut state),
        };
        let (piece, rest) = data.split_at(size.min(data.len()));
        data = rest;
        Some(piece)
    })
}

/// A size from 1 on: mostly small, now and then some hundred.
fn varying(state: &mut u32) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    let size = (*state >> 8) as usize;
    1 + if *state & 3 == 0 { size % 700 } else { size % 24 }
}
