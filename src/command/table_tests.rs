use super::*;
use crate::command::model::{Dedicated, Effect, Route};
use crate::command::testing::Request;

fn named(table: &Table, line: &str) -> String {
    match table.find(&Request::new(line).args()) {
        Found::Command(command) => command.name.to_string(),
        Found::Unknown => "unknown".into(),
        Found::UnknownSubcommand(command) => format!("no such {}", command.name),
        Found::WrongArity(command) => format!("arity of {}", command.name),
    }
}

#[test]
fn names_are_found_in_any_case_with_their_subcommands_and_arity() {
    let table = Table::builtin();
    for (line, expected) in [
        ("get k", "get"),
        ("GeT k", "get"),
        ("GET", "arity of get"),
        ("GET k k", "arity of get"),
        ("CONFIG SET a b", "config|set"),
        ("config set a", "arity of config|set"),
        ("CONFIG", "arity of config"),
        ("CONFIG NOPE", "no such config"),
        ("CONFIG|SET a b", "unknown"),
        ("COMMAND", "command"),
        ("COMMAND COUNT", "command|count"),
        ("GEORADIUSBYMEMBER_RO k m 1 m x", "georadiusbymember_ro"),
        ("CLIENT NO-EVICT on", "client|no-evict"),
        ("DEBUG SLEEP 0", "debug"),
        ("NOPE", "unknown"),
        ("\"\"", "unknown"),
        // Setting bit 5 would make these equal; only letters have case.
        ("SORT\u{7f}RO k", "unknown"),
        ("(unknown)", "unknown"),
    ] {
        assert_eq!(named(&table, line), expected, "{line}");
    }
    assert_eq!(named(&table, &"x".repeat(100_000)), "unknown");
}

#[test]
fn every_row_is_found_by_its_own_name_and_has_its_own_id() {
    let table = Table::builtin();
    assert!(table.iter().len() > 380);
    for (at, command) in table.iter().enumerate() {
        assert_eq!(usize::from(command.id), at + 1);
        assert_eq!(table.by_name(&command.name).map(|c| c.id), Some(command.id), "{} is there twice", command.name);
        assert_eq!(table.get(command.id), Some(command));
        assert_eq!(command.name.to_ascii_lowercase(), *command.name);
    }
    assert_eq!(table.unknown().id, 0);
    assert_eq!(table.ids(), table.iter().len() + 1);
}

#[test]
fn what_is_kept_is_a_plain_tracked_read() {
    let table = Table::builtin();
    let kept: Vec<_> = table.iter().filter(|c| c.effect == Effect::Serve).collect();
    assert_eq!(kept.len(), 48, "the 47 of redis-facts, section 4, and EXISTS");
    for command in table.iter().filter(|c| matches!(c.effect, Effect::Serve | Effect::ServeAll)) {
        assert_eq!(command.access, crate::command::Access::Read, "{}", command.name);
        assert_eq!(command.route, Route::Lane, "{}", command.name);
        assert!(matches!(command.keys, crate::command::Keys::Range { first: 1, .. }), "{}", command.name);
    }
}

#[test]
fn every_write_drops_its_keys_and_what_cannot_name_them_says_so() {
    use crate::command::{Access, Flags, Keys};
    for command in Table::builtin().iter() {
        match (&command.access, &command.keys) {
            (Access::Write, Keys::None) if command.name.starts_with("function|") => {
                assert_eq!(command.effect, Effect::Nothing)
            }
            // The proxy carries them out itself, and sees to what they drop.
            (Access::Write, Keys::None) if matches!(command.route, Route::Local(_)) => {
                assert_eq!(command.effect, Effect::Nothing)
            }
            (Access::Write, Keys::None) => {
                assert_eq!(command.effect, Effect::DropEverything, "{}", command.name)
            }
            (Access::Write, _) => assert_eq!(command.effect, Effect::DropKeys, "{}", command.name),
            (Access::Unknown, _) => {
                assert_eq!(command.effect, Effect::DropKeysAndFence, "{}", command.name)
            }
            (Access::Read | Access::Neither, _) => {
                assert!(!command.flags.contains(Flags::WRITE), "{}", command.name)
            }
        }
        if command.flags.contains(Flags::BLOCKING) && !command.flags.contains(Flags::MOVABLEKEYS) {
            assert_eq!(command.route, Route::Dedicated(Dedicated::Blocking), "{}", command.name);
        }
    }
}

/// Not an assertion of speed, which the machine decides: `cargo test --release --lib finding_is_fast -- --ignored --nocapture`.
#[test]
#[ignore = "prints a measurement"]
fn finding_is_fast() {
    let table = Table::builtin();
    for line in ["GET k", "zrangebyscore k 0 1", "CLIENT ID", "CONFIG GET save", "nosuchcommand k"] {
        let request = Request::new(line);
        let args = request.args();
        // The best of many short runs, since the machine is shared.
        let rounds = 100_000u32;
        let run = || {
            let begin = std::time::Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(table.find(std::hint::black_box(&args)));
            }
            begin.elapsed().as_nanos() as f64 / f64::from(rounds)
        };
        let best = (0..100).map(|_| run()).fold(f64::MAX, f64::min);
        println!("{line}: {best:.1} ns");
    }
}
