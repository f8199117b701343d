//! The cluster that the end-to-end tests run on, by hand.

fn main() -> std::process::ExitCode {
    mizuya_e2e::kubernetes::command_line::run()
}
