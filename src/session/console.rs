//! PROXY: what the console's words come to (`admin/console`), carried out for this client.
//!
//! What takes a while (a walk through memory, a tag in Redis) is an operation that the request at hand waits for; its reply
//! is the verdict. Nothing of it is done on the worker's thread.

use super::request::Flow;
use super::then::Then;
use super::{Session, Verdict};
use crate::admin::console::Order;
use crate::admin::console::answer::Answer;
use crate::coherence::{Cause, Invalidation, Pattern};
use crate::command::{Effect, Found, LocalProxy};
use crate::resp::{Args, encode};
use crate::tags;
use crate::upstream::connect::Connector;

impl Session {
    /// What an operator asks of the proxy itself.
    pub(super) fn console(&mut self, word: LocalProxy, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        match Order::read(word, args) {
            Order::Answer(answer) => self.answer_with(&answer),
            Order::Show(show) => self.answer_with(&show.answer(&worker.shared)),
            Order::Why(from) => {
                let why = self.why(&args.iter().skip(from).collect::<Vec<_>>());
                self.answer_with(&why.answer(&worker.config().cache));
            }
            Order::Look(look) => {
                let shared = worker.shared.clone();
                return self.answer_later(async move {
                    let answer = worker.shared.bus.walks.look(move || look.answer(&shared)).await;
                    answer.unwrap_or_else(|| Answer::Error("ERR anteroom: the proxy is stopping".to_owned()))
                });
            }
            Order::Steer(steer) => return self.steer(steer),
            Order::SlowlogReset => {
                worker.shared.slow.reset();
                self.answer(|out, _| encode::simple(out, "OK"));
            }
            Order::Flush(pattern) => return self.flush(pattern),
            Order::Tag { tags_end, seconds_at } => {
                let tags: Vec<&[u8]> = args.iter().take(tags_end).skip(3).collect();
                let key = args.get(2).unwrap_or_default();
                let (request, ranges) = tags::adding(key, &tags, seconds_at.and_then(|at| args.get(at)));
                return self.as_script(&Args::new(&request, &ranges));
            }
            Order::Invalidate(Invalidation::Tag(tag)) => return self.invalidate_tag(tag),
            Order::Invalidate(invalidation) => return self.invalidate(invalidation),
        }
        Flow::Next
    }

    fn answer_with(&mut self, answer: &Answer) {
        self.answer(|out, protocol| answer.write(out, protocol));
    }

    /// The request waits for this; then it is answered so, as a request of its own verdict.
    fn answer_later(&mut self, answer: impl Future<Output = Answer> + 'static) -> Flow {
        let protocol = self.protocol;
        self.operation = Some(Box::pin(async move {
            let mut reply = Vec::new();
            answer.await.write(&mut reply, protocol);
            Verdict::Reply(reply)
        }));
        Flow::Hold
    }

    /// Drops what is kept here, and tells nobody: it was right.
    fn flush(&mut self, pattern: Option<Pattern>) -> Flow {
        let worker = self.worker.clone();
        self.answer_later(async move {
            let walks = &worker.shared.bus.walks;
            Answer::Number(match pattern {
                Some(pattern) => walks.walk(&worker.coherence, vec![pattern], Cause::Console).await,
                None => {
                    let coherence = worker.coherence.clone();
                    // Not on this thread: what is kept is known once moka's outstanding housekeeping is done.
                    let dropped = walks.look(move || {
                        coherence.tidy();
                        let entries = coherence.size().entries;
                        coherence.everything(Cause::Console);
                        entries
                    });
                    dropped.await.unwrap_or_default()
                }
            })
        })
    }

    fn invalidate(&mut self, invalidation: Invalidation) -> Flow {
        let worker = self.worker.clone();
        // Told first, so that others begin as early as this one; what is read after the reply is newer than either.
        worker.coherence.pass_on(&invalidation);
        if let Invalidation::Matching(pattern) = invalidation {
            return self.answer_later(async move {
                let walks = &worker.shared.bus.walks;
                Answer::Number(walks.walk(&worker.coherence, vec![pattern], Cause::Console).await)
            });
        }
        let dropped = worker.coherence.invalidate(&invalidation, Cause::Console);
        self.answer_with(&Answer::Number(dropped));
        Flow::Next
    }

    /// A console command that comes to a script in Redis, which is planned as if the client had sent it. Unlike a client's it is known to
    /// write no other keys than it declares.
    fn as_script(&mut self, args: &Args<'_>) -> Flow {
        let table = self.worker.table();
        match table.find(args) {
            Found::Command(command) => {
                let mut command = command.clone();
                command.effect = Effect::DropKeys;
                self.plan(&command, args)
            }
            _ => self.pass(args, Then::Nothing),
        }
    }

    fn invalidate_tag(&mut self, tag: Vec<u8>) -> Flow {
        // What this client has written before is gone with the tag.
        if !self.is_settled() {
            return Flow::Hold;
        }
        let worker = self.worker.clone();
        let connector = Connector { db: self.db, ..worker.shared.connector(Some(&self.identity)) };
        self.operation = Some(Box::pin(async move {
            let mut reply = Vec::new();
            match worker.shared.bus.sweeps.sweep(&connector, &worker.coherence, &tag, Cause::Console).await {
                Ok(keys) => encode::integer(&mut reply, i64::try_from(keys).unwrap_or(i64::MAX)),
                Err(why) if why.starts_with("NOPERM") || why.starts_with("WRONGTYPE") => encode::error(&mut reply, why),
                Err(why) => {
                    encode::error(&mut reply, format!("ERR anteroom: the tag is not wholly invalidated: {why}"))
                }
            }
            Verdict::Reply(reply)
        }));
        Flow::Hold
    }
}
