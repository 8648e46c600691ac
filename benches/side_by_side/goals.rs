//! What the figures should be: the project's goals for the processor time of the proxy per request, over that of Redis asked
//! directly in the same round, with one worker and 50 connections.

use crate::contender::Contender;
use crate::workload::{Operation, Workload};

/// The most the ratio should be, if there is a goal.
pub fn ratio_max(contender: Contender, workload: &Workload, connections: usize, pipeline: usize) -> Option<f64> {
    if connections != 50 {
        return None;
    }
    let by_pipeline = |first: f64, sixteen: f64, sixty_four: f64| match pipeline {
        1 => Some(first),
        16 => Some(sixteen),
        64 => Some(sixty_four),
        _ => None,
    };
    use Operation::{Get, HashGetAll, ListRange, Set, TopTen};
    match (contender, workload.operation, workload.value_bytes) {
        (Contender::TierOn, HashGetAll, _) => by_pipeline(0.75, 0.45, f64::NAN).filter(|goal| !goal.is_nan()),
        (Contender::TierOn, ListRange | TopTen, _) => by_pipeline(0.75, 0.25, f64::NAN).filter(|goal| !goal.is_nan()),
        (Contender::TierOn, Get, 16_384) => Some(1.0),
        (Contender::TierOn | Contender::TierOff, Get, 32) | (Contender::TierOn, Set, 32) => {
            by_pipeline(0.95, 0.80, 0.60)
        }
        (Contender::Misses, Get, 32) => by_pipeline(1.00, 0.95, 0.90),
        _ => None,
    }
}

/// The most the ratio of the Redis behind the proxy should be, if there is a goal.
pub fn upstream_ratio_max(
    contender: Contender,
    workload: &Workload,
    connections: usize,
    pipeline: usize,
) -> Option<f64> {
    let passes = match workload.operation {
        Operation::Get => contender == Contender::TierOff,
        Operation::Set => contender == Contender::TierOn,
        _ => false,
    };
    match (connections, pipeline) {
        (50, 1) if passes && workload.value_bytes == 32 => Some(0.4),
        (50, 16) if passes && workload.value_bytes == 32 => Some(0.65),
        _ => None,
    }
}
