//! Random numbers that depend on a seed alone: SplitMix64.
//!
//! The state is a counter that goes up by the golden ratio's 64 bits; each number is the counter, mixed. It passes
//! BigCrush, its period is 2^64, and any two seeds give streams without a visible relation. It is not secret: the seed,
//! or some numbers, tell all of them.
//!
//! Reference: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17
//! (the constants are those of variant 13 of D. Stafford's mixers).

use super::Chance;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// Where the stream stands.
    pub(super) fn state(&self) -> u64 {
        self.state
    }

    /// Goes on where another stream stood.
    pub(super) fn go_on(&mut self, state: u64) {
        self.state = state;
    }

    /// The stream of this number, of this seed.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        Random { state: mix(seed ^ mix(stream)) }
    }

    /// The next number; all 64 bits are random.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Returns true with this chance. An impossible event takes no random number.
    pub(super) fn hits(&mut self, chance: Chance) -> bool {
        chance != Chance::NEVER && scaled(self.next(), Chance::ONE_IN) < u64::from(chance.per_million())
    }

    /// A number from 0 up to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "53 bits, as an f64 has")]
        let top = (self.next() >> 11) as f64;
        top / 9_007_199_254_740_992.0
    }
}

/// A random number turned into one from 0 up to `bound`, without it.
pub(super) fn scaled(number: u64, bound: u64) -> u64 {
    #[allow(clippy::cast_possible_truncation, reason = "less than `bound`")]
    let scaled = ((u128::from(number) * u128::from(bound)) >> 64) as u64;
    scaled
}

/// A number from which no bit of `bits` can be told.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // The first outputs of the published generator for the state 1234567.
        let mut random = Random { state: 1_234_567 };
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| random.next()), expected);
    }

    #[test]
    fn streams_of_one_seed_differ_and_numbers_fill_their_range() {
        let (mut one, mut two) = (Random::new(7, 1), Random::new(7, 2));
        assert!((0..1000).all(|_| one.next() != two.next()));
        let mut seen = [0u32; 10];
        for _ in 0..100_000 {
            seen[usize::try_from(scaled(one.next(), 10)).unwrap()] += 1;
            assert!((0.0..1.0).contains(&one.unit()));
        }
        assert!(seen.iter().all(|count| (9_600..10_400).contains(count)), "{seen:?}");
    }
}
