//! MGET is answered from memory only as of one instant (R18).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Stage;

/// Readers of a, b and c while `write` sets all three to the same number, over and over. Returns how many reads there were.
fn read_while(stage: &Stage, write: impl FnMut(usize) + Send) -> usize {
    let stop = AtomicBool::new(false);
    let readers: Vec<_> = (0..3).map(|n| if n == 0 { stage.proxy.client3() } else { stage.proxy.client() }).collect();
    std::thread::scope(|scope| {
        let mut write = write;
        scope.spawn({
            let stop = &stop;
            move || {
                let end = Instant::now() + Duration::from_millis(1500);
                let mut n = 0;
                while Instant::now() < end {
                    write(n);
                    n += 1;
                    // Quiet times, so that reads are answered from memory too.
                    if n.is_multiple_of(8) {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
                stop.store(true, Ordering::Relaxed);
            }
        });
        let reading = readers.into_iter().map(|mut client| {
            let stop = &stop;
            scope.spawn(move || {
                let mut reads = 0;
                while !stop.load(Ordering::Relaxed) {
                    let text = client.text(&["MGET", "a", "b", "c"]);
                    let values: Vec<&str> = text.split("\r\n").collect();
                    assert!(values[2] == values[4] && values[4] == values[6], "torn: {text:?}");
                    reads += 1;
                }
                reads
            })
        });
        let reading: Vec<_> = reading.collect();
        reading.into_iter().map(|reader| reader.join().expect("no view is torn")).sum()
    })
}

#[test]
fn an_mget_never_shows_half_of_an_mset() {
    let stage = Stage::new();
    stage.foreign(&["MSET", "a", "0", "b", "0", "c", "0"]);
    let mut foreign = stage.redis.client();
    let mut own = stage.proxy.client();
    let reads = read_while(&stage, |n| {
        let n = format!("{n:08}");
        let command = ["MSET", "a", &n, "b", &n, "c", &n];
        if n.ends_with(['0', '1', '2', '3', '4']) {
            foreign.ask(&command)
        } else {
            own.ask(&command)
        };
    });
    let hits = stage.hits();
    assert!(hits > reads as u64 / 20, "only {hits} of {reads} came from memory, so this proves little");
}
