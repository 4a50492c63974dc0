//! Which sequence numbers of one sender have been seen, so that no datagram counts twice.
//!
//! The technique is that of RFC 6479 (a ring of bits that slides with the highest number): O(1) per datagram in the
//! usual case, and late datagrams are still accepted once.

/// How far behind the highest number a datagram may come and still count; chosen: at 10 000 datagrams per second, 0.1 s
/// of reordering.
pub(crate) const WINDOW: u64 = 1024;

const WORDS: usize = 16;
const WORD_BITS: u64 = 64;

/// The numbers seen so far, exactly within [`WINDOW`] of the highest.
#[derive(Debug)]
pub(crate) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

/// What a window says about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It had not been seen; from here on it has.
    New,
    /// It was seen before.
    Seen,
    /// It is too far behind to know.
    TooOld,
}

impl Window {
    /// A window whose highest number is `sequence`; only that one has been seen.
    pub(crate) fn starting_at(sequence: u64) -> Self {
        let mut window = Self { highest: sequence, seen: [0; WORDS] };
        window.mark(sequence);
        window
    }

    /// Judges `sequence` and remembers it.
    pub(crate) fn accept(&mut self, sequence: u64) -> Freshness {
        if self.highest.saturating_sub(sequence) >= WINDOW {
            return Freshness::TooOld;
        }
        let ahead = sequence.saturating_sub(self.highest);
        if ahead > 0 {
            // The positions that the window enters still hold the bits of numbers that leave it.
            for entered in sequence - ahead.min(WINDOW) + 1..=sequence {
                let (word, bit) = self.bit(entered);
                *word &= !bit;
            }
            self.highest = sequence;
        }
        let (word, bit) = self.bit(sequence);
        if *word & bit != 0 { Freshness::Seen } else { self.mark(sequence) }
    }

    fn mark(&mut self, sequence: u64) -> Freshness {
        let (word, bit) = self.bit(sequence);
        *word |= bit;
        Freshness::New
    }

    fn bit(&mut self, sequence: u64) -> (&mut u64, u64) {
        let position = sequence % WINDOW;
        let word = usize::try_from(position / WORD_BITS).ok().and_then(|word| self.seen.get_mut(word));
        (word.expect("1024 positions are 16 words of 64 bits"), 1 << (position % WORD_BITS))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_late_number_counts_once() {
        let mut window = Window::starting_at(100);

        assert_eq!(window.accept(99), Freshness::New);
        assert_eq!(window.accept(99), Freshness::Seen);
        assert_eq!(window.accept(100), Freshness::Seen);
    }

    #[test]
    fn a_number_that_left_the_window_never_counts() {
        let mut window = Window::starting_at(1);

        assert_eq!(window.accept(1 + WINDOW), Freshness::New);
        assert_eq!(window.accept(1), Freshness::TooOld);
        assert_eq!(window.accept(2), Freshness::New);
    }

    #[test]
    fn a_leap_forgets_everything_behind_it() {
        let mut window = Window::starting_at(1);

        assert_eq!(window.accept(u64::MAX), Freshness::New);
        assert_eq!(window.accept(u64::MAX), Freshness::Seen);
        assert_eq!(window.accept(u64::MAX - WINDOW), Freshness::TooOld);
        assert_eq!(window.accept(u64::MAX - WINDOW + 1), Freshness::New);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_all_numbers(start in 0_u64..3_000, sequences in prop::collection::vec(0_u64..6_000, 1..400)) {
            let mut window = Window::starting_at(start);
            let mut seen = BTreeSet::from([start]);
            for sequence in sequences {
                let highest = *seen.last().unwrap();
                let expected = if highest.saturating_sub(sequence) >= WINDOW {
                    Freshness::TooOld
                } else if seen.insert(sequence) {
                    Freshness::New
                } else {
                    Freshness::Seen
                };
                prop_assert_eq!(window.accept(sequence), expected);
            }
        }
    }
}
