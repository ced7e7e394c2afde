//! The cache salt of a request.

use std::fmt;
use std::sync::Arc;

/// Longest salt that is kept as it is; see [`CacheSalt::new`].
const MAX_BYTES: usize = 1024;

/// A cache salt. It may be a secret: it seeds hashes and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheSalt(Arc<[u8]>);

impl CacheSalt {
    /// A salt of more than 1,024 bytes keeps the first 1,024 and the XXH64 of all, so that memory stays bounded and
    /// other salts stay other salts.
    pub fn new(salt: &[u8]) -> Self {
        if salt.len() <= MAX_BYTES {
            return Self(salt.into());
        }
        let hash = xxhash_rust::xxh64::xxh64(salt, 0);
        Self([&salt[..MAX_BYTES], &hash.to_le_bytes()[..]].concat().into())
    }
    /// For hashing only.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CacheSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheSalt(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_is_not_printed_and_long_ones_are_bounded() {
        assert_eq!(format!("{:?}", CacheSalt::new(b"s3cr3t")), "CacheSalt(..)");
        assert_eq!(CacheSalt::new(b"s3cr3t").as_bytes(), b"s3cr3t");
        let (a, b) = (vec![b'a'; 5000], [vec![b'a'; 4999], vec![b'b']].concat());
        assert_eq!(CacheSalt::new(&a).as_bytes().len(), 1032);
        assert_ne!(CacheSalt::new(&a), CacheSalt::new(&b));
    }
}
