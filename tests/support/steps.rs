//! Anything that can happen to a hub, at random: persons who come, talk, read, fall silent, break
//! off and come back.

use parlour::protocol::close::CloseReason;
use proptest::prelude::*;

/// Who talks in a case.
pub const PEOPLE: usize = 4;
/// Names: one for each person, mostly. Two are the same as others, and two look like others: they
/// have Cyrillic letters.
pub const NAMES: [&str; 8] = ["Ann", "Bob", "Cas", "Dan", "ANN", "bob", "\u{412}ob", "C\u{430}s"];
/// Rooms; most happens in the first.
pub const ROOMS: [&str; 3] = ["r", "s", "t"];
/// How a connection can end, as its reader sees it.
pub const ENDS: [CloseReason; 5] = [
    CloseReason::ClientClosed,
    CloseReason::ClientGone,
    CloseReason::ConnectionLost,
    CloseReason::PingTimeout,
    CloseReason::TooBig,
];
/// Length of a long content.
const LONG_BYTES: usize = 9000;
/// A queue that never fills in a case.
pub const QUEUE_ENOUGH: usize = 4096;

/// The rules of one case.
#[derive(Clone, Debug)]
pub struct Rules {
    pub history: usize,
    pub grace: u64,
    pub rooms: usize,
}

/// Which session somebody names who joins.
#[derive(Clone, Debug)]
pub enum Claim {
    Own,
    Of(usize),
    Wrong,
    None,
}

/// What somebody who joins says it has seen.
#[derive(Clone, Debug)]
pub enum Seen {
    Truth,
    Less(u64),
    More(u64),
    OtherLife,
    Nothing,
}

/// What happens; `who` is the number of a person.
#[derive(Clone, Debug)]
pub enum Step {
    /// With `again` in the same room and under the same name as before.
    Join {
        who: usize,
        again: bool,
        name: Option<usize>,
        room: usize,
        claim: Claim,
        seen: Seen,
        queue: usize,
    },
    Say {
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
    Complain {
        who: usize,
        reference: Option<usize>,
    },
    End {
        who: usize,
        how: usize,
    },
    /// Takes what has come.
    Read {
        who: usize,
    },
    /// What comes on this connection from here on does not arrive, though the hub does not know
    /// yet.
    Silence {
        who: usize,
    },
    /// Sends what it sent last, once more.
    Again {
        who: usize,
    },
    /// The turn ends.
    Flush,
    Wait(u64),
    NoticesDue,
    Stop,
}

/// The rules of any case.
pub fn rules() -> impl Strategy<Value = Rules> {
    (0..6usize, prop_oneof![1 => Just(0), 4 => Just(100)], 1..4usize)
        .prop_map(|(history, grace, rooms)| Rules { history, grace, rooms })
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let who = 0..PEOPLE;
    let reference = || prop_oneof![1 => Just(None), 2 => (0..3usize).prop_map(Some)];
    let claim = prop_oneof![6 => Just(Claim::Own), 1 => who.clone().prop_map(Claim::Of), 1 => Just(Claim::Wrong), 2 => Just(Claim::None)];
    let name = prop_oneof![5 => Just(None), 1 => (0..NAMES.len()).prop_map(Some)];
    let room = prop_oneof![8 => Just(0), 1 => 1..ROOMS.len()];
    let seen = prop_oneof![
        6 => Just(Seen::Truth),
        1 => (1..9u64).prop_map(Seen::Less),
        1 => (1..9u64).prop_map(Seen::More),
        1 => Just(Seen::OtherLife),
        2 => Just(Seen::Nothing),
    ];
    let queue = prop_oneof![3 => Just(QUEUE_ENOUGH), 2 => 1..4usize];
    let join = (who.clone(), prop::bool::weighted(0.8), name, room, claim, seen, queue);
    prop_oneof![
        6 => join.prop_map(|(who, again, name, room, claim, seen, queue)| Step::Join { who, again, name, room, claim, seen, queue }),
        8 => (who.clone(), 0..3usize, reference()).prop_map(|(who, content, reference)| Step::Say { who, content, reference }),
        6 => (who.clone(), 0..NAMES.len(), 0..3usize, reference())
            .prop_map(|(who, to, content, reference)| Step::Whisper { who, to, content, reference }),
        1 => (who.clone(), reference()).prop_map(|(who, reference)| Step::Complain { who, reference }),
        4 => (who.clone(), 0..ENDS.len()).prop_map(|(who, how)| Step::End { who, how }),
        4 => who.clone().prop_map(|who| Step::Read { who }),
        1 => who.clone().prop_map(|who| Step::Silence { who }),
        5 => who.clone().prop_map(|who| Step::Again { who }),
        5 => Just(Step::Flush),
        3 => (1..200u64).prop_map(Step::Wait),
        1 => Just(Step::NoticesDue),
        1 => prop_oneof![20 => Just(Step::Flush), 1 => Just(Step::Stop)],
    ]
}

/// Content number `number`; some are so long that few of them make an entry of their own.
pub fn words(number: usize) -> String {
    match number {
        0 | 1 => number.to_string(),
        _ => "x".repeat(LONG_BYTES),
    }
}
