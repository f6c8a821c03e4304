// What this page knows of its room, which of its messages are not confirmed yet, and when to
// connect again. The twin of src/terminal/conversation.rs.
//
// There is no page, no socket and no clock in here. Each method takes what happened, and returns
// what to show and what to send. What comes from the server or from storage has been checked.
//
// Every message carries a reference that no other has, in its field `ref`. It is an idempotency
// key: the server does not repeat a message whose reference it knows. So after a broken connection
// everything unconfirmed can be sent again, unless the server may have forgotten its reference.

import { MEMBERS_MAX } from './checked.js';
import { texts } from './texts.js';

/** A message that is unconfirmed for this long shows that the connection is dead. */
const CONFIRMATION_MS = 15_000;
/** Private messages to keep after their confirmation, since an error about one may still follow. */
const DELIVERED_MAX = 64;
/** Longest text to compare with a name. The server accepts none that is longer. */
const COMPARED_UNITS_MAX = 2112;
/** Longest name in a text, in whatever form it is written there. */
const NAME_UNITS_MAX = 128;
/** Most of a message's `@` to compare with a name. */
const MENTIONS_MAX = 100;

/**
 * Folds a name of a member or a room: names that fold to the same are the same. The twin of
 * src/protocol/fold.rs.
 */
export function fold(name) {
  const visible = name.slice(0, COMPARED_UNITS_MAX)
    .replace(/\p{Default_Ignorable_Code_Point}/gu, '')
    .normalize('NFKD');
  // Turkish ı stays as it is. Its capital is that of i.
  const letters = visible.split('ı').map(foldCase).join('ı');
  return letters.normalize('NFKC').split(/\p{White_Space}+/u).filter(Boolean).join(' ');
}

/** Several letters of one case may share one of the other: ς and σ; ẞ, ß and ss. */
function foldCase(letters) {
  // At the end of a word, JavaScript writes ς.
  return letters.toLowerCase().toUpperCase().toLowerCase().replaceAll('ς', 'σ');
}

/** What follows from an event. */
class Effects {
  /** Entries to show in the log, in this order. */
  toShow = [];
  /** Messages to send, in this order. */
  toSend = [];
  /** Unconfirmed messages to draw again, or to remove if they are no longer unconfirmed. */
  changed = new Set();
  /** True if a message has failed, which the user should see. */
  hasFailed = false;
  /** The reference of a private message to remove from the log. */
  retracted = null;
  /** A new message of another member, to which the user may want to be alerted. */
  alert = null;
  /** True if a member joined or left. */
  membersChanged = false;
  /** True if the room's history has just been received. */
  upToDate = false;
}

/** One member's view of a room, over any number of connections. */
export class Conversation {
  name = '';
  room = '';
  /** From the last welcome: what the server knows this member by, `{ session, epoch }`. */
  membership = null;
  /** The number of the newest public message that was shown, and the same before a reload. */
  newestShown = 0;
  newestBeforeReload = 0;
  /** Messages of the history that this connection still has to deliver; null before its welcome. */
  historyLeft = null;
  /** Names, by the form in which they are compared. */
  members = new Map();
  /**
   * Messages that the server has not confirmed by sending them back, by reference. Each is
   * `{ message, sent, by, failed }`: when and under which name it was sent, if it was, and why it
   * will not be sent again, if so.
   */
  unconfirmed = new Map();
  /** The last private messages of this member that were confirmed, by reference. */
  delivered = new Map();
  /** True if the server may have forgotten the references of public messages: there is a gap. */
  publicForgotten = false;
  /** True if the server does not know the session any more, nor references of private messages. */
  privateForgotten = false;
  #referencePrefix;
  #referencesUsed = 0;

  /** Begins a conversation. `referencePrefix` makes its references its own. */
  constructor(referencePrefix) {
    this.#referencePrefix = referencePrefix;
  }

  /** Takes a message of the server. */
  receive(message, now) {
    const effects = new Effects();
    switch (message.type) {
      case 'welcome': this.#enter(message, effects, now); break;
      case 'public': this.#receivePublic(message, effects, now); break;
      case 'private': this.#show(message, effects); break;
      case 'join': this.#join(message, effects); break;
      case 'leave': this.#leave(message, effects); break;
      case 'error': this.#receiveError(message, effects); break;
    }
    return effects;
  }

  /** Takes a message that the user wrote, to one member, or to everyone if `to` is null. */
  post(to, content, now) {
    const effects = new Effects();
    this.#referencesUsed += 1;
    const ref = `${this.#referencePrefix}-${this.#referencesUsed}`;
    const recipient = to === null ? { type: 'public' } : { type: 'private', to };
    this.#send(this.#keep({ ...recipient, content, ref }, effects), effects, now);
    return effects;
  }

  /** Sends a failed message again. */
  retry(item, now) {
    const effects = new Effects();
    Object.assign(item, { sent: 0, failed: '' });
    effects.changed.add(item);
    this.#send(item, effects, now);
    return effects;
  }

  /** Gives up a message. */
  discard(item, effects = new Effects()) {
    this.unconfirmed.delete(item.message.ref);
    effects.changed.add(item);
    return effects;
  }

  /** Marks the oldest message that was sent as failed: over it, the connection was closed. */
  failOldest(why) {
    const effects = new Effects();
    const oldest = [...this.unconfirmed.values()].find(({ sent, failed }) => sent && !failed);
    if (oldest) this.#fail(oldest, why, effects);
    return effects;
  }

  /** Notes that the connection has ended. */
  disconnect() {
    this.historyLeft = null;
  }

  /** True if `room` is this room, which the server may write in another form. */
  isIn(room) {
    return fold(room) === fold(this.room);
  }

  /** Changes the room, and forgets the last. Returns false if it is the same room. */
  moveTo(room) {
    const isSame = this.isIn(room);
    // What was typed before may be a form that the server refuses.
    this.room = room;
    if (isSame) return false;
    Object.assign(this, { membership: null, newestShown: 0, newestBeforeReload: 0 });
    Object.assign(this, { publicForgotten: false, privateForgotten: false });
    this.members.clear();
    this.unconfirmed.clear();
    this.delivered.clear();
    return true;
  }

  /** Returns what the page has to keep to resume the conversation after a reload. */
  toSeat() {
    const { name, room, membership } = this;
    const seen = Math.max(this.newestShown, this.newestBeforeReload);
    return { name, room, ...membership, seen, unsettled: [...this.unconfirmed.values()] };
  }

  /** Resumes the conversation from what `toSeat` returned before a reload. */
  resume({ name, room, session, epoch, seen, unsettled }) {
    const membership = session ? { session, epoch } : null;
    Object.assign(this, { name, room, membership, newestBeforeReload: seen });
    for (const item of unsettled) this.unconfirmed.set(item.message.ref, item);
  }

  /** Returns the query of the next connection's URL. */
  query() {
    const { name, room, membership, newestShown } = this;
    const resume = membership && { ...membership, since: newestShown };
    return new URLSearchParams({ name, room, ...resume });
  }

  /** True if the current connection has had no welcome yet. */
  get awaitsWelcome() {
    return this.historyLeft === null;
  }

  /** True if the room's history has been received, so that messages may be sent. */
  get isUpToDate() {
    return this.historyLeft === 0;
  }

  /** True if the confirmation of a message is so late that the connection must be dead. */
  isOverdue(now) {
    const isLate = ({ sent, failed }) => sent && !failed && sent < now - CONFIRMATION_MS;
    return this.isUpToDate && [...this.unconfirmed.values()].some(isLate);
  }

  /** True if the text names this member, as in `@Ann`. */
  isMention(content) {
    const mention = fold(`@${this.name}`);
    let at = content.indexOf('@');
    for (let left = MENTIONS_MAX; left > 0 && at >= 0; left -= 1) {
      if (fold(content.slice(at, at + NAME_UNITS_MAX)).startsWith(mention)) return true;
      at = content.indexOf('@', at + 1);
    }
    return false;
  }

  /** Lists the other members whose names begin with `stem`. */
  completions(stem) {
    const beginning = fold(stem);
    if (beginning === '') return [];
    const fits = ([key, name]) => name !== this.name && key.startsWith(beginning);
    return [...this.members].filter(fits).map(([, name]) => name).sort();
  }

  #enter(welcome, effects, now) {
    this.#findLosses(welcome, effects);
    const { user, room, users, epoch, session, history } = welcome;
    this.members = new Map(users.map((name) => [fold(name), name]));
    effects.membersChanged = true;
    this.name = user;
    this.room = room;
    this.membership = { session, epoch };
    this.historyLeft = history;
    this.#sendUnconfirmed(effects, now);
  }

  /** Compares a welcome with the one before, to find out what the server has forgotten since. */
  #findLosses({ epoch, session, seq, history }, effects) {
    // The server keeps with a session which private messages have arrived.
    if (session !== this.membership?.session) this.privateForgotten = true;
    if (epoch !== this.membership?.epoch) {
      this.newestShown = 0;
      this.newestBeforeReload = 0;
      if (this.membership) effects.toShow.push({ type: 'divider', content: texts.restarted });
    } else if (seq - history > Math.max(this.newestShown, this.newestBeforeReload)) {
      this.publicForgotten = true;
      effects.toShow.push({ type: 'divider', content: texts.gap });
    }
  }

  #receivePublic(message, effects, now) {
    if (message.seq > this.newestShown) {
      this.newestShown = message.seq;
      this.#show(message, effects);
    } else {
      // It was shown before the connection broke, without its confirmation being noticed.
      this.#confirm(message, effects);
    }
    if (this.historyLeft > 0) {
      this.historyLeft -= 1;
      this.#sendUnconfirmed(effects, now);
    }
  }

  #show(message, effects) {
    this.#confirm(message, effects);
    effects.toShow.push(message);
    const isHistory = message.type === 'public' && !this.isUpToDate;
    if (!isHistory && message.user !== this.name) effects.alert = message;
  }

  #join(message, effects) {
    const key = fold(message.user);
    // This member's own adds nothing to the welcome.
    if (this.members.has(key) || this.members.size >= MEMBERS_MAX) return;
    this.members.set(key, message.user);
    effects.membersChanged = true;
    effects.toShow.push(message);
  }

  #leave(message, effects) {
    this.members.delete(fold(message.user));
    effects.membersChanged = true;
    effects.toShow.push(message);
  }

  #receiveError({ code, content, ref }, effects) {
    const why = Object.hasOwn(texts.errors, code) ? texts.errors[code] : content;
    const item = this.unconfirmed.get(ref);
    const delivered = this.delivered.get(ref);
    if (item) this.#fail(item, why, effects);
    else if (delivered) this.#retract(delivered, effects);
    // Before the welcome it is a refusal, and the close that follows says the same.
    else if (!this.awaitsWelcome) effects.toShow.push({ type: 'note', content: why });
  }

  /** Keeps a message until it is confirmed. */
  #keep(message, effects) {
    const item = { message, sent: 0, by: this.name, failed: '' };
    this.unconfirmed.set(message.ref, item);
    effects.changed.add(item);
    return item;
  }

  /** Sends a message, unless it has to wait until the room's history has been received. */
  #send(item, effects, now) {
    if (!this.isUpToDate) return;
    Object.assign(item, { sent: now, by: this.name });
    effects.changed.add(item);
    effects.toSend.push(item.message);
  }

  #fail(item, why, effects) {
    item.failed = why;
    effects.changed.add(item);
    effects.hasFailed = true;
  }

  /** Confirms a message, if it is one of this member. */
  #confirm({ ref, user, type, to, content }, effects) {
    const item = this.unconfirmed.get(ref);
    if (!item || item.by !== user) return;
    this.discard(item, effects);
    if (type !== 'private') return;
    this.delivered.set(ref, { type, to, content, ref });
    if (this.delivered.size > DELIVERED_MAX) {
      this.delivered.delete(this.delivered.keys().next().value);
    }
  }

  /** Takes back a confirmed private message: its recipient was away, and has not returned. */
  #retract(message, effects) {
    this.delivered.delete(message.ref);
    effects.retracted = message.ref;
    this.#fail(this.#keep(message, effects), texts.notDelivered(message.to), effects);
  }

  /**
   * Sends everything unconfirmed again, once the room's history has been received and may have
   * confirmed some of it. Gives up messages that would appear twice if they had arrived, because
   * the server has forgotten their references.
   */
  #sendUnconfirmed(effects, now) {
    if (!this.isUpToDate) return;
    effects.upToDate = true;
    const isForgotten = { public: this.publicForgotten, private: this.privateForgotten };
    this.publicForgotten = false;
    this.privateForgotten = false;
    for (const item of this.unconfirmed.values()) {
      if (item.failed) continue;
      const isUncertain = item.sent && isForgotten[item.message.type];
      if (isUncertain) this.#fail(item, texts.uncertain, effects);
      else this.#send(item, effects, now);
    }
  }
}

/** The close codes that this page sends or tells apart. */
export const CLOSE = {
  left: 1000, // sent when the user leaves
  tooBig: 1009,
  suspect: 4000, // sent on a connection that may be dead; the member stays
  invalidName: 4400, // or an invalid room
  nameTaken: 4409,
  replaced: 4410,
  roomLimit: 4503,
};
/** The server refuses this member, until the user changes something. */
const REFUSALS = new Set([CLOSE.invalidName, CLOSE.nameTaken, CLOSE.roomLimit]);
/** Longest wait after a connection that was steady. Each further attempt doubles it. */
const FIRST_WAIT_MAX_MS = 500;
/** Longest wait of all. */
const WAIT_MAX_MS = 30_000;
/**
 * How long an attempt that ended without a welcome may live on as a member. As on IRC, a ghost
 * keeps its name taken.
 */
const GHOST_MS = 15_000;
/**
 * If the clock pauses for this long, the device slept, and the connection may be dead. Longer than
 * a minute, since timers of hidden tabs may fire only once a minute.
 */
const SLEEP_MS = 90_000;

/** When to connect again. */
export class Reconnection {
  /** Attempts since the last steady connection. */
  attempts = 0;
  /** True if the connection seems open but may be dead. */
  suspect = false;
  /** True if another tab has taken over the session. */
  replaced = false;
  /** When an attempt last ended without a welcome. */
  ghostSince = -Infinity;
  #lastTick;

  constructor(now) {
    this.#lastTick = now;
  }

  /** Checks, about once a second, for signs of a dead connection. Returns true if there are any. */
  tick(now, isOverdue) {
    const slept = now - this.#lastTick > SLEEP_MS;
    this.#lastTick = now;
    if (slept || isOverdue) this.suspect = true;
    return slept || isOverdue;
  }

  /**
   * Decides what to do after a close: to connect again in `waitMs`, or nothing until the user has
   * acted because the member is `refused` or `replaced`. `random` is a number from 0 to 1.
   */
  closed(code, { welcomed, now, random }) {
    if (code === CLOSE.replaced) {
      // If both tabs connected again, they would take the session from each other for ever.
      this.replaced = true;
      return { replaced: true };
    }
    const isGhost = code === CLOSE.nameTaken && now - this.ghostSince < GHOST_MS;
    if (REFUSALS.has(code) && !isGhost) return { refused: true };
    if (!REFUSALS.has(code) && !welcomed) this.ghostSince = now;
    const longest = Math.min(WAIT_MAX_MS, FIRST_WAIT_MAX_MS * 2 ** this.attempts);
    this.attempts += 1;
    // Half of the wait is random, so that the members of a room do not all return at once.
    return { waitMs: longest * (0.5 + random / 2) };
  }
}

/**
 * Parses what the user typed. Returns `{ to, content }`, or null if there is nothing to send.
 * Without a command it goes to `recipient`, or to everyone if that is null. `members` are those of
 * `Conversation`.
 */
export function parseTyped(text, recipient, members) {
  const content = text.trimEnd();
  if (content === '') return null;
  const command = /^\/msg\s+(.*)$/s.exec(content);
  return command ? splitRecipient(command[1], members) : { to: recipient, content };
}

/**
 * Splits what follows `/msg` into the recipient's name and the text. Names may contain spaces, so
 * the longest name that matches is taken. If none does, the first word is: the server replies that
 * nobody has that name.
 */
function splitRecipient(rest, members) {
  const ends = [...rest.slice(0, NAME_UNITS_MAX).matchAll(/\s+/g)].map(({ index }) => index);
  const longest = ends.reverse().find((end) => members.has(fold(rest.slice(0, end))));
  const end = longest ?? rest.search(/\s/);
  if (end <= 0) return null;
  const typed = rest.slice(0, end);
  const content = rest.slice(end).trim();
  return content ? { to: members.get(fold(typed)) ?? typed, content } : null;
}
