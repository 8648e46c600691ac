//! Which cases are measured: the standard selection, which has every case a goal is set for, and all of them.

use crate::contender::Contender;
use crate::measure::Case;
use crate::workload::{Operation, Workload};

const ALL_OF_THEM: [Contender; 5] =
    [Contender::Redis, Contender::TierOn, Contender::TierOff, Contender::Nutcracker, Contender::Haproxy];

/// Keys of the cases in which every read misses: more than are asked for twice before the admission forgets them.
const MISSING_KEYS: usize = 1_000_000;

fn case(operation: Operation, value_bytes: usize, connections: usize, pipeline: usize) -> Case {
    let workload = Workload::new(operation, value_bytes);
    Case { workload, connections, pipeline, contenders: ALL_OF_THEM.to_vec() }
}

/// Those that are asked by TLS.
const BY_TLS: [Contender; 2] = [Contender::RedisTls, Contender::TierOnTls];

/// With them, beside the same ones that are not.
fn with_tls(mut case: Case) -> Case {
    case.contenders.extend(BY_TLS);
    case
}

fn missing(connections: usize, pipeline: usize) -> Case {
    let workload = Workload { keys: MISSING_KEYS, ..Workload::new(Operation::Get, 32) };
    let contenders = vec![Contender::Redis, Contender::Misses, Contender::Fills];
    Case { workload, connections, pipeline, contenders }
}

/// What has a goal, and enough besides to see where the peers stand.
pub fn standard() -> Vec<Case> {
    use Operation::{Get, HashGetAll, ListRange, Mix, MultiGet, Set, TopTen};
    let mut cases = vec![case(Get, 32, 1, 1), case(Set, 32, 1, 1)];
    for operation in [Get, Set] {
        cases.extend([1, 16, 64].map(|pipeline| case(operation, 32, 50, pipeline)));
    }
    // What it costs to find out about requests, what limits add to a hit, and TLS.
    for hits in cases.iter_mut().filter(|case| case.workload.operation == Get && case.connections == 50) {
        hits.contenders.splice(
            2..2,
            [
                Contender::Unobserved,
                Contender::UnobservedOff,
                Contender::OneLimit,
                Contender::Limited,
                Contender::Refused,
            ],
        );
        hits.contenders.extend(BY_TLS);
    }
    cases.extend([1, 16, 64].map(|pipeline| missing(50, pipeline)));
    for operation in [HashGetAll, ListRange, TopTen] {
        cases.extend([1, 16].map(|pipeline| without_peers(case(operation, 32, 50, pipeline))));
    }
    cases.extend([1, 16, 64].map(|pipeline| with_tls(without_peers(case(Get, 16_384, 50, pipeline)))));
    for rest in
        [case(Get, 1024, 50, 16), case(MultiGet, 32, 50, 16), case(Mix(90), 32, 50, 16), case(Mix(50), 32, 50, 16)]
    {
        cases.push(without_peers(rest));
    }
    cases
}

/// Everything.
pub fn full() -> Vec<Case> {
    use Operation::{Get, HashGetAll, ListRange, Mix, MultiGet, Set, TopTen};
    let mut cases = Vec::new();
    for connections in [1, 50] {
        for pipeline in [1, 16, 64] {
            for operation in [Get, Set] {
                cases.extend([32, 1024, 16_384].map(|bytes| case(operation, bytes, connections, pipeline)));
            }
            cases.extend(
                [HashGetAll, ListRange, TopTen, MultiGet, Mix(90), Mix(50)]
                    .map(|operation| case(operation, 32, connections, pipeline)),
            );
            cases.push(missing(connections, pipeline));
        }
    }
    cases
}

fn without_peers(mut case: Case) -> Case {
    case.contenders.retain(|who| !matches!(who, Contender::Nutcracker | Contender::Haproxy));
    case
}

/// Whether the reader asked for this contender of this case; Redis is asked whenever anyone is.
pub fn wanted(case: &Case, contender: Contender, only: &[String]) -> bool {
    let Case { workload, connections, pipeline, .. } = case;
    let name = format!("{} {} c{connections} p{pipeline} ", contender.label(workload), workload.name()).to_lowercase();
    only.is_empty() || only.iter().all(|words| name.contains(&words.to_lowercase()))
}

/// The cases that remain of a plan.
pub fn narrowed(cases: Vec<Case>, only: &[String]) -> Vec<Case> {
    let narrow = |mut case: Case| {
        let whole = case.clone();
        case.contenders.retain(|&who| wanted(&whole, who, only));
        if !case.contenders.is_empty() && case.contenders[0] != Contender::Redis {
            case.contenders.insert(0, Contender::Redis);
        }
        case
    };
    cases.into_iter().map(narrow).filter(|case| !case.contenders.is_empty()).collect()
}
