//! Random sequences of all that can happen to a hub: people join, talk, read, lose their connection
//! and come back.

use parlour::protocol::close::CloseReason;
use proptest::prelude::*;

/// How many people there are in a case.
pub const PEOPLE: usize = 4;
/// Names: mostly each person has its own. Two are the same as others, and two look like others:
/// they have Cyrillic letters.
pub const NAMES: [&str; 8] = ["Ann", "Bob", "Cas", "Dan", "ANN", "bob", "\u{412}ob", "C\u{430}s"];
/// Rooms. Most steps happen in the first.
pub const ROOMS: [&str; 3] = ["r", "s", "t"];
/// How a connection can end, as its reader reports it.
pub const ENDS: [CloseReason; 5] = [
    CloseReason::ClientClosed,
    CloseReason::ClientGone,
    CloseReason::ConnectionLost,
    CloseReason::PingTimeout,
    CloseReason::TooBig,
];
/// How many contents there are, the last of which is long.
const CONTENTS: usize = 3;
/// Length of a long content, of which few fill an entry.
const LONG_BYTES: usize = 9000;
/// Length of a queue that no case can fill.
pub const QUEUE_AMPLE: usize = 4096;

/// The server's options in one case.
#[derive(Clone, Debug)]
pub struct CaseOptions {
    pub history: usize,
    /// In milliseconds. 0 switches it off.
    pub grace: u64,
    pub rooms: usize,
}

/// The session that somebody who joins claims.
#[derive(Clone, Debug)]
pub enum Claim {
    Own,
    /// That of another person.
    Of(usize),
    Wrong,
    None,
}

/// What somebody who joins says it has received, with `since` and `epoch`.
#[derive(Clone, Debug)]
pub enum Since {
    True,
    Earlier(u64),
    Later(u64),
    OtherEpoch,
    None,
}

/// What happens next. `who` is the number of a person.
#[derive(Clone, Debug)]
pub enum Step {
    /// With `again`, in the same room and under the same name as before.
    Join {
        who: usize,
        again: bool,
        name: Option<usize>,
        room: usize,
        claim: Claim,
        since: Since,
        queue: usize,
    },
    Publish {
        who: usize,
        content: usize,
        reference: Option<usize>,
    },
    Whisper {
        who: usize,
        to: usize,
        content: usize,
        reference: Option<usize>,
    },
    /// Sends something that is not JSON.
    Invalid {
        who: usize,
        reference: Option<usize>,
    },
    End {
        who: usize,
        how: usize,
    },
    /// Receives what is queued.
    Read {
        who: usize,
    },
    /// Nothing sent on this connection arrives any more, and the hub does not notice.
    Stall {
        who: usize,
    },
    /// Sends its last message again.
    Repeat {
        who: usize,
    },
    /// Ends the turn.
    Flush,
    /// Lets so many milliseconds pass.
    Wait(u64),
    NoticesDue,
    Stop,
}

/// Generates the options of a case.
pub fn case_options() -> impl Strategy<Value = CaseOptions> {
    (0..6usize, prop_oneof![1 => Just(0), 4 => Just(100)], 1..4usize)
        .prop_map(|(history, grace, rooms)| CaseOptions { history, grace, rooms })
}

/// Generates a step.
pub fn step() -> impl Strategy<Value = Step> {
    let who = 0..PEOPLE;
    let reference = || prop_oneof![1 => Just(None), 2 => (0..3usize).prop_map(Some)];
    let claim = prop_oneof![
        6 => Just(Claim::Own),
        1 => who.clone().prop_map(Claim::Of),
        1 => Just(Claim::Wrong),
        2 => Just(Claim::None),
    ];
    let name = prop_oneof![5 => Just(None), 1 => (0..NAMES.len()).prop_map(Some)];
    let room = prop_oneof![8 => Just(0), 1 => 1..ROOMS.len()];
    let since = prop_oneof![
        6 => Just(Since::True),
        1 => (1..9u64).prop_map(Since::Earlier),
        1 => (1..9u64).prop_map(Since::Later),
        1 => Just(Since::OtherEpoch),
        2 => Just(Since::None),
    ];
    let queue = prop_oneof![3 => Just(QUEUE_AMPLE), 2 => 1..4usize];
    let again = prop::bool::weighted(0.8);
    let join = (who.clone(), again, name, room, claim, since, queue).prop_map(
        |(who, again, name, room, claim, since, queue)| Step::Join {
            who,
            again,
            name,
            room,
            claim,
            since,
            queue,
        },
    );
    let publish = (who.clone(), 0..CONTENTS, reference())
        .prop_map(|(who, content, reference)| Step::Publish { who, content, reference });
    let whisper = (who.clone(), 0..NAMES.len(), 0..CONTENTS, reference())
        .prop_map(|(who, to, content, reference)| Step::Whisper { who, to, content, reference });
    let invalid = (who.clone(), reference());
    prop_oneof![
        6 => join,
        8 => publish,
        6 => whisper,
        1 => invalid.prop_map(|(who, reference)| Step::Invalid { who, reference }),
        4 => (who.clone(), 0..ENDS.len()).prop_map(|(who, how)| Step::End { who, how }),
        4 => who.clone().prop_map(|who| Step::Read { who }),
        1 => who.clone().prop_map(|who| Step::Stall { who }),
        5 => who.clone().prop_map(|who| Step::Repeat { who }),
        5 => Just(Step::Flush),
        3 => (1..200u64).prop_map(Step::Wait),
        1 => Just(Step::NoticesDue),
        1 => prop_oneof![20 => Just(Step::Flush), 1 => Just(Step::Stop)],
    ]
}

/// Returns content number `number`: two short ones and a long one.
pub fn content_of(number: usize) -> String {
    if number < CONTENTS - 1 { number.to_string() } else { "x".repeat(LONG_BYTES) }
}
