//! Prints random expressions and what Kong's router (the crate atc-router) says of some requests for each: the content of
//! `dp/tests/data/expression-cases.json`. Its lookups are measured beside ours by `cargo bench`.

mod cases;

fn main() {
    println!("{}", cases::make());
}

/// A small generator of numbers that look random: the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
