//! Inputs out of seeds: changed, joined, or made up.

use fastrand::Rng;

const LONGEST: usize = 2_048;
/// How many earlier inputs are changed further.
const KEPT: usize = 256;

/// What parsers here know, which random bytes seldom hit.
const WORDS: &[&[u8]] = &[
    b"10.0.0.1",
    b"203.0.113.9",
    b"2001:db8::1",
    b"::ffff:10.0.0.1",
    b"[",
    b"]",
    b"]:443",
    b":80",
    b",",
    b", ",
    b"\n",
    b"%",
    b"%-",
    b"%~",
    b"%3A",
    b":",
    b"{",
    b"}",
    b"\xff",
    b"\xc3\xbc",
    b"\0",
];

pub(crate) struct Mutator {
    rng: Rng,
    seeds: usize,
    pool: Vec<Vec<u8>>,
    input: Vec<u8>,
}

impl Mutator {
    pub(crate) fn new(seeds: &[&[u8]], seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            seeds: seeds.len(),
            pool: seeds.iter().map(|seed| seed.to_vec()).collect(),
            input: Vec::new(),
        }
    }

    pub(crate) fn next(&mut self) -> &[u8] {
        self.input.clear();
        if self.pool.is_empty() || self.rng.u8(..8) == 0 {
            let length = self.rng.usize(..256);
            self.input.resize(length, 0);
            self.rng.fill(&mut self.input);
        } else {
            let base = self.rng.usize(..self.pool.len());
            self.input.extend_from_slice(&self.pool[base]);
            for _ in 0..self.rng.u8(1..=8) {
                self.change();
            }
        }
        self.input.truncate(LONGEST);
        self.keep();
        &self.input
    }

    fn change(&mut self) {
        let at = self.rng.usize(..=self.input.len());
        let to = self.rng.usize(at..=self.input.len().min(at + 32));
        match self.rng.u8(..6) {
            0 if at < self.input.len() => self.input[at] ^= 1 << self.rng.u8(..8),
            1 if at < self.input.len() => self.input[at] = self.rng.u8(..),
            2 => drop(self.input.drain(at..to)),
            3 => {
                let copy = self.input[at..to].to_vec();
                self.insert(&copy);
            }
            4 => {
                let other = self.rng.usize(..self.pool.len());
                let other = self.pool[other].clone();
                let from = self.rng.usize(..=other.len());
                self.insert(&other[from..]);
            }
            _ => {
                let word = WORDS[self.rng.usize(..WORDS.len())];
                self.insert(word);
            }
        }
    }

    fn insert(&mut self, bytes: &[u8]) {
        let at = self.rng.usize(..=self.input.len());
        self.input.splice(at..at, bytes.iter().copied());
        self.input.truncate(LONGEST);
    }

    /// The seeds stay; the rest of the pool is replaced again and again.
    fn keep(&mut self) {
        if self.pool.len() < self.seeds + KEPT {
            self.pool.push(self.input.clone());
        } else if self.rng.u8(..16) == 0 {
            let place = self.rng.usize(self.seeds..self.pool.len());
            self.pool[place].clone_from(&self.input);
        }
    }
}
