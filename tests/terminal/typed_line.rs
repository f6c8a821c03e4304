//! What the lines that a user types ask for.

use parlour::terminal::typed_line::TypedLine;

#[test]
fn a_typed_line_is_a_message_or_a_command() {
    let typed =
        |line: &str| TypedLine::parse(line, ["Bob", "Bob Smith", "İpek", "ann"].into_iter());
    let private =
        |to: &str, content: &str| TypedLine::Private { to: to.into(), content: content.into() };
    assert_eq!(typed("  indented  "), TypedLine::Public("  indented".into()));
    assert_eq!(typed(" \t"), TypedLine::Blank);
    assert_eq!(typed("//msg Bob"), TypedLine::Public("/msg Bob".into()));
    assert_eq!(typed("/msg bob smith  hello there "), private("bob smith", "hello there"));
    assert_eq!(typed("/msg Bob Smithers hello"), private("Bob", "Smithers hello"));
    assert_eq!(typed("/msg Eve hello"), private("Eve", "hello"));
    assert_eq!(typed("/msg İpek x"), private("İpek", "x"));
    // The same names, typed in another way.
    assert_eq!(typed("/msg BOB  \u{A0}smith hi"), private("BOB  \u{A0}smith", "hi"));
    assert_eq!(typed("/msg i\u{307}PEK x"), private("i\u{307}PEK", "x"));
    for invalid in
        ["/msg", "/msg Bob", "/msg Bob ", "/mgs Bob secret", "/", "/ msg Bob x", "/quitting"]
    {
        assert!(matches!(typed(invalid), TypedLine::Invalid(_)), "{invalid}");
    }
    assert_eq!(
        (typed("/quit"), typed("/who"), typed("/help ")),
        (TypedLine::Quit, TypedLine::Who, TypedLine::Help)
    );
}
