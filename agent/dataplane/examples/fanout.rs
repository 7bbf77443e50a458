//! Prints the fan-out bench: `cargo run --release -p castgate-dataplane --example fanout`.

use castgate_dataplane::bench::{FanoutOptions, Row, fanout};

fn main() -> std::io::Result<()> {
    for Row { bench, case, ours, ceiling, unit, ratio } in fanout(&FanoutOptions::default())? {
        println!("{bench} {case}: {ours:.0} {unit} of {ceiling:.0}, ratio {ratio:.2}");
    }
    Ok(())
}
