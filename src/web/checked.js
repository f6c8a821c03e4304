// Reads what the page can't trust: messages of the server, and what an earlier page kept in the
// browser's storage. Whatever is not as it should be is dropped. What is returned has only known
// fields, of the right type and of bounded size.
//
// The bounds are those of src/terminal/received.rs: all that a server can be set to send fits.

/** Longest message, in UTF-16 units. A longer one is not even parsed. */
const MESSAGE_UNITS_MAX = 8 << 20;
/** Longest content of a message. */
const CONTENT_UNITS_MAX = 1 << 20;
/** Most members of a room to know. */
export const MEMBERS_MAX = 50_000;
/** Longest name of a member, in characters. More of a name is not shown. */
const NAME_CHARS_MAX = 32;
/** Longest name of a room, in characters. */
const ROOM_CHARS_MAX = 64;
/** Longest session, epoch or reference. */
const TOKEN_UNITS_MAX = 64;
/** Characters to keep of an explanation. */
const WORDS_CHARS_MAX = 500;
/** Messages to keep over a reload. */
const UNCONFIRMED_MAX = 1000;
/** The latest time that JavaScript can show. */
const TIME_MAX_MS = 8.64e15;

/** Parses a message of the server. Returns null for anything that this page can't use. */
export function readMessage(data) {
  return attempt(() => {
    const message = parse(data);
    return { type: message.type, ...MESSAGES.get(message.type)(message) };
  });
}

/**
 * Parses the seat that `Conversation.toSeat` returned before a reload. Returns null if nothing of
 * it can be used. A session that can't be used is left out, and so is each such message.
 */
export function readSeat(data) {
  return attempt(() => {
    const seat = parse(data);
    return {
      ...record({ name: ownName, room })(seat),
      ...attempt(() => record({ session: token, epoch: token })(seat)),
      seen: attempt(() => count(seat.seen)) ?? 0,
      unsettled: (attempt(() => list(seat.unsettled, UNCONFIRMED_MAX)) ?? [])
        .map((item) => attempt(() => unconfirmed(item)))
        .filter((item) => item !== null),
    };
  });
}

/** Returns the name that was kept, or an empty one. */
export function readName(data) {
  return attempt(() => ownName(data)) ?? '';
}

// Each of the functions below returns what is to be kept of a value, and throws if that is nothing.

const attempt = (read) => {
  try { return read(); } catch { return null; }
};

function check(isUsable) {
  if (!isUsable) throw new TypeError('unusable');
}

function parse(data) {
  check(typeof data === 'string' && data.length <= MESSAGE_UNITS_MAX);
  return JSON.parse(data);
}

const text = (max) => (value) => {
  check(typeof value === 'string' && value.length <= max);
  return value;
};
const token = text(TOKEN_UNITS_MAX);
const content = text(CONTENT_UNITS_MAX);

/** A name or a room. What the user typed as one, the server may still refuse. */
const ownName = text(2 * NAME_CHARS_MAX);
const room = text(2 * ROOM_CHARS_MAX);

/** Cuts a text after `max` characters, with an ellipsis for the rest. */
const words = (max) => (value) => {
  check(typeof value === 'string');
  // Twice as many units hold all of these characters.
  const characters = [...value.slice(0, 2 * max + 1)];
  return characters.length > max ? `${characters.slice(0, max).join('')}…` : value;
};
const name = words(NAME_CHARS_MAX);

const count = (value) => {
  check(Number.isSafeInteger(value) && value >= 0);
  return value;
};

const time = (value) => {
  check(count(value) <= TIME_MAX_MS);
  return value;
};

/** Keeps the first `max` items. */
const list = (value, max) => {
  check(Array.isArray(value));
  return value.slice(0, max);
};

const optional = (read) => (value) => (value === undefined ? undefined : read(value));

/** Keeps these fields of an object, each as its function returns it. */
const record = (fields) => (value) =>
  Object.fromEntries(Object.entries(fields).map(([key, read]) => [key, read(value[key])]));

const names = (value) => list(value, MEMBERS_MAX).map(name);
const ref = optional(token);

/** What is kept of each type of message. */
const MESSAGES = new Map(Object.entries({
  welcome: record({ user: name, room, users: names, epoch: token, session: token, seq: count,
    history: count }),
  public: record({ user: name, content, seq: count, ref, ts: time }),
  private: record({ user: name, to: name, content, ref, ts: time }),
  join: record({ user: name, ts: time }),
  leave: record({ user: name, ts: time }),
  error: record({ code: token, content: words(WORDS_CHARS_MAX), ref }),
}));

/** What is kept of a message that was not confirmed yet. */
function unconfirmed({ message, sent, by, failed }) {
  const to = { public: {}, private: { to: text(MESSAGE_UNITS_MAX) } };
  check(Object.hasOwn(to, message.type));
  const fields = { content: text(MESSAGE_UNITS_MAX), ref: token, ...to[message.type] };
  return {
    message: { type: message.type, ...record(fields)(message) },
    ...record({ sent: time, by: name, failed: words(WORDS_CHARS_MAX) })({ sent, by, failed }),
  };
}
