//! The nearest spelling of a word that is not known.

/// The known word that `word` most likely means: the same letters in another case or with other separators, or few
/// enough typing errors; `None` when nothing is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(word);
    let allowed = 1 + wanted.len() / 4;
    known
        .into_iter()
        .map(|candidate| (plain(candidate), candidate))
        // Each letter too many is an error, so a word of a document, however long, costs no more than the known ones.
        .filter(|(letters, _)| letters.len().abs_diff(wanted.len()) <= allowed)
        .map(|(letters, candidate)| (distance(&wanted, &letters), candidate))
        .filter(|(errors, _)| *errors <= allowed)
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?`, or nothing when no known word is near.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|found| format!("; did you mean `{found}`?")).unwrap_or_default()
}

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Edit distance that counts two swapped neighbours as one error (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] =
        ["queue-scorer", "kv-cache-utilization-scorer", "max-score-picker", "config-file"];

    #[test]
    fn the_nearest_spelling_is_found() {
        for (word, wanted) in [
            ("queue-scorrer", Some("queue-scorer")),
            ("queue_scorer", Some("queue-scorer")),
            ("configFile", Some("config-file")),
            ("max-socre-picker", Some("max-score-picker")),
            ("kv-cache-utilisation-scorer", Some("kv-cache-utilization-scorer")),
            ("something-else", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, KNOWN), wanted, "{word}");
        }
    }

    #[test]
    fn a_word_of_a_megabyte_is_compared_with_nothing() {
        assert_eq!(nearest(&"queue".repeat(200_000), KNOWN.into_iter().cycle().take(1000)), None);
    }

    #[test]
    fn a_swap_is_one_error() {
        assert_eq!(distance(&plain("abcd"), &plain("abdc")), 1);
        assert_eq!(distance(&plain("kitten"), &plain("sitting")), 3);
        assert_eq!(distance(&plain(""), &plain("abc")), 3);
    }
}
