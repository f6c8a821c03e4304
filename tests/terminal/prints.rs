//! What waits for the printer.

use std::thread;

use parlour::terminal::prints::prints;

#[test]
fn a_full_queue_makes_the_app_wait() {
    let (sender, receiver) = prints();
    let app = thread::spawn(move || {
        // An empty queue takes what is longer than the bound.
        sender.send(&"x".repeat(8 << 20)).expect("an open queue");
        for _ in 0..200 {
            sender.send(&"y".repeat(600 << 10)).expect("an open queue");
        }
    });
    assert_eq!(receiver.recv().map(|text| text.len()), Some(8 << 20));
    // Two of the others are over the bound, so each is taken alone.
    for _ in 0..200 {
        assert_eq!(receiver.recv().map(|text| text.len()), Some(600 << 10));
    }
    app.join().unwrap();
    assert_eq!(receiver.recv(), None);
}

#[test]
fn what_waits_is_printed_at_once_and_nothing_after_the_printer_has_gone() {
    let (sender, receiver) = prints();
    sender.send("one\n").unwrap();
    sender.send("two\n").unwrap();
    assert_eq!(receiver.recv().as_deref(), Some("one\ntwo\n"));
    drop(receiver);
    assert!(sender.send("three\n").is_err());
}
