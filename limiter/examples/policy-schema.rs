//! Prints the JSON Schema of a file of policies, which is docs/policies.schema.json.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

fn main() {
    print!("{}", limiter::config::schema());
}
