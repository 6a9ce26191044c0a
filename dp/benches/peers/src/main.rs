//! Kong's router (the crate atc-router), to measure beside ours and to make test cases with.
//!
//! `cargo run --release -- bench` prints what a lookup costs, for the shapes of `table_bench`.
//! `cargo run --release -- cases` prints random expressions and what each says of some requests: the content of
//! `dp/tests/data/expression-cases.json`.

mod bench;
mod cases;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("bench") => bench::run(),
        Some("cases") => println!("{}", cases::make()),
        Some(_) | None => eprintln!("bench or cases"),
    }
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
