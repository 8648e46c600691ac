//! Resident memory of interests: what it takes to remember that a client is to hear of a key.
//!
//! The clients read everything twice before they track, so that what entries, buffers and tables take is there already.

use std::path::Path;

use serde::Serialize;

use crate::ask::{Ask, Request};
use crate::crowd::{Crowd, Who, words};
use crate::placement::Placement;
use crate::processes::Process;

/// Requests sent at once.
const BATCH: usize = 100;

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Whether it is the proxy's; else Redis's own.
    pub of_proxy: bool,
    /// Clients, each of which has read all keys.
    pub clients: usize,
    /// Keys.
    pub keys: usize,
    /// Growth of the process for each client and key, in bytes.
    pub interest_bytes: f64,
    /// Growth for each client that began to track, in bytes.
    pub client_bytes: f64,
}

/// Measures these shapes (clients, keys), and prints what came out.
pub fn measure(binary: &Path, placement: &Placement, shapes: &[(usize, usize)]) -> Vec<Memory> {
    println!("\nMemory of interests: growth of the process as clients that track read what is kept already\n");
    println!("| of | clients | keys | bytes for each client and key | bytes for each client that tracks, besides |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let mut all = Vec::new();
    for &(clients, keys) in shapes {
        for of_proxy in [false, true] {
            let memory = one(of_proxy.then_some(binary), placement, clients, keys);
            let of = if of_proxy { "proxy" } else { "Redis" };
            // A page or two says nothing of one client.
            let client = if clients < 100 { String::new() } else { format!("{:.0}", memory.client_bytes) };
            println!("| {of} | {clients} | {keys} | {:.0} | {client} |", memory.interest_bytes);
            all.push(memory);
        }
    }
    all
}

fn one(proxy: Option<&Path>, placement: &Placement, clients: usize, keys: usize) -> Memory {
    let redis = Process::redis(if proxy.is_some() { &placement.upstream } else { &placement.tested });
    let ours = proxy
        .map(|binary| Process::proxy(binary, &placement.tested, redis.address, 1, "[cache]\nadmit_after = 1\n", false));
    let server = ours.as_ref().unwrap_or(&redis);
    Ask::connect(redis.address).fill((0..keys).map(|n| words(&["SET", &format!("key:{n:08}"), "v"])));
    let mut crowd = Crowd::new();
    let members: Vec<Who> = (0..clients).map(|_| crowd.join(server.address)).collect();
    let reads: Vec<Request> = (0..keys).map(|n| words(&["GET", &format!("key:{n:08}")])).collect();
    let read = |crowd: &mut Crowd| {
        for &who in &members {
            for batch in reads.chunks(BATCH) {
                crowd.ask(who, batch);
                crowd.answered();
            }
        }
    };
    (0..3).for_each(|_| read(&mut crowd));
    let before = server.resident_bytes();
    members.iter().for_each(|&who| crowd.track(who, &[]));
    let tracking = server.resident_bytes();
    read(&mut crowd);
    let grown = |later: u64, earlier: u64| later as f64 - earlier as f64;
    Memory {
        of_proxy: proxy.is_some(),
        clients,
        keys,
        interest_bytes: grown(server.resident_bytes(), tracking) / (clients * keys) as f64,
        client_bytes: grown(tracking, before) / clients as f64,
    }
}
