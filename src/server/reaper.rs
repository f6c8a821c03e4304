//! The reaper: joins each connection's thread as it ends, then gives its place back.
//!
//! It follows the hub's pattern: [`Reaper::run`] selects, and `handle` decides. Because every
//! thread is joined, no stack outlives its client and no panic goes unseen.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, at, never, select};
use log::{Level, error, info};

use crate::chat::connection::{ClientId, Connection};
use crate::http::admission::Place;
use crate::system::logging;

/// How long a refused connection stays open. Closed at once, with its request unread, it would be
/// reset, and the client might not see the response.
const TURNED_AWAY_LINGER: Duration = Duration::from_millis(500);
/// Maximum number of these connections, since each holds a descriptor.
const TURNED_AWAY_MAX: usize = 16;

/// What happens to the reaper.
pub enum Event {
    /// A connection has its thread.
    Started(Served),
    /// A connection's thread is about to end.
    Ended(ClientId),
    /// A connection was refused. It is closed once its client has had time to read why.
    TurnedAway(TcpStream),
    /// No further connection will start. Requests that have not arrived never will, and at `cut_at`
    /// every socket is shut down.
    Stop { cut_at: Instant },
}

/// A connection that is being served.
///
/// The fields are in the order in which they are dropped: the socket is closed before its place is
/// given back, so the system never holds more sockets than there are places.
pub struct Served {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Its place.
    pub place: Arc<Place>,
    /// Its reader, which joins its writer.
    pub reader: JoinHandle<()>,
}

/// The state of the reaper.
#[derive(Default)]
pub struct Reaper {
    live: HashMap<ClientId, Served>,
    /// Threads so short that their end arrived before their start.
    ended_early: HashSet<ClientId>,
    turned_away: VecDeque<(Instant, TcpStream)>,
}

impl Reaper {
    /// Handles events until every sender is dropped: when the accept loop and every connection have
    /// ended.
    pub fn run(mut self, events: &Receiver<Event>) {
        let mut cut = never();
        loop {
            let oldest = self.turned_away.front();
            let close_oldest =
                oldest.map_or_else(never, |(since, _)| at(*since + TURNED_AWAY_LINGER));
            select! {
                recv(close_oldest) -> _ => {
                    self.turned_away.pop_front();
                }
                recv(events) -> event => match event {
                    Ok(Event::Stop { cut_at }) => {
                        cut = after(cut_at.saturating_duration_since(Instant::now()));
                        self.end_requests();
                    }
                    Ok(event) => self.handle(event),
                    Err(_) => return,
                },
                recv(cut) -> _ => self.cut_all(),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Started(served) => {
                let id = served.connection.id;
                if self.ended_early.remove(&id) {
                    join(served);
                } else {
                    self.live.insert(id, served);
                }
            }
            Event::Ended(id) => match self.live.remove(&id) {
                Some(served) => join(served),
                None => {
                    self.ended_early.insert(id);
                }
            },
            Event::TurnedAway(stream) => {
                self.turned_away.push_back((Instant::now(), stream));
                if self.turned_away.len() > TURNED_AWAY_MAX {
                    self.turned_away.pop_front();
                }
            }
            Event::Stop { .. } => self.end_requests(),
        }
    }

    /// Ends the connections whose request has not arrived. The hub closes the others.
    fn end_requests(&self) {
        for Served { connection, .. } in self.live.values() {
            if !connection.upgraded.load(Ordering::SeqCst) {
                let _ = connection.stream.shutdown(Shutdown::Read);
            }
        }
    }

    fn cut_all(&self) {
        info!("cutting {} connections that did not end in time", self.live.len());
        for Served { connection, .. } in self.live.values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Joins a connection's threads. Then the socket is closed, and then its place given back.
fn join(served: Served) {
    let Served { connection, place, reader } = served;
    if reader.join().is_err()
        && let Some(more) = logging::due(Level::Error, "reader panicked")
    {
        error!("the reader of client {} panicked; only that client is gone{more}", connection.id);
    }
    drop(connection);
    drop(place);
}

/// Sends [`Event::Ended`] when a connection's thread ends, by a panic too.
pub struct EndedOnDrop {
    /// The connection.
    pub id: ClientId,
    /// The way to the reaper.
    pub reaper: Sender<Event>,
}

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        // The reaper outlives every connection: it ends when the last of these senders is dropped.
        let _ = self.reaper.send(Event::Ended(self.id));
    }
}
