// What this tab knows of its room, and what it has sent and still owes. The twin of
// src/terminal/conversation.rs. There is no page, no socket and no clock in here: each event is
// reported by a call, which returns what to do about it.

import { texts } from './texts.js';

/** The wait before the first attempt to connect again, and the longest. Each is twice the last. */
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
/** For so long after an attempt that ended without a welcome, the name may be taken by it. */
const ORPHAN_MS = 15_000;
/**
 * If the clock stood still for this long, the device slept, and the connection may be dead. Hidden
 * tabs get the time once a minute.
 */
const ASLEEP_MS = 90_000;
/** After this long, a message without its confirmation shows that the connection is dead. */
const CONFIRM_MS = 15_000;
/** Confirmed private messages that are kept, since an error about one may still follow. */
const DELIVERED_MAX = 64;

/** The close codes that matter here. */
export const CLOSE = {
  left: 1000, // by the user, who has left
  tooBig: 1009,
  suspect: 4000, // by this page, which does not trust the connection; the member has not left
  badName: 4400,
  nameTaken: 4409,
  replaced: 4410,
  roomLimit: 4503,
};
/** Closes after which the user has to change something. */
const REFUSALS = new Set([CLOSE.badName, CLOSE.nameTaken, CLOSE.roomLimit]);

/** What follows from an event. */
class Turn {
  /** Entries for the log, in this order. */
  shown = [];
  /** Messages for the server, in this order. */
  send = [];
  /** Pending messages to draw again, or to remove if they are no longer pending. */
  changed = new Set();
  /** The reference of a private message to remove from the log. */
  retracted = null;
  /** A new message of another member, which the user may want to notice. */
  alert = null;
  membersChanged = false;
  /** True if the history has just become complete. */
  caughtUp = false;
}

/**
 * One member's view of a room, over any number of connections.
 *
 * A message of this member is pending until the server sends it back, which confirms it. Until
 * then it is sent again on each new connection, with the same reference (`ref`). By the reference
 * the server knows which messages have already arrived, as long as it remembers them.
 */
export class Conversation {
  name = '';
  room = '';
  /** The secret from the last welcome, and the epoch of the room that it named. */
  session = null;
  epoch = null;
  /** The newest public message in the log. */
  seq = 0;
  /** The newest that was in the log before the page was reloaded. */
  seqBeforeReload = 0;
  /** Messages of the history that are still to come on this connection; null before its welcome. */
  toCome = null;
  /** Names, by their form in lower case. */
  members = new Map();
  /**
   * Messages that are not confirmed, by reference. Of each, `{ message, sent, by, failed }`: when
   * it was last sent, or 0; under which name; and why it will not be sent again, or ''.
   */
  pending = new Map();
  /** Private messages of this member by reference, the last that were confirmed. */
  delivered = new Map();
  /** The room may have forgotten public messages of this member, together with its history. */
  publicForgotten = false;
  /** The server may have forgotten private ones, together with the session. */
  privateForgotten = false;
  #refPrefix;
  #refs = 0;

  /** `refPrefix` keeps the references apart from those of others and of the last page load. */
  constructor(refPrefix) {
    this.#refPrefix = refPrefix;
  }

  /** The query of the next connection. */
  query() {
    return new URLSearchParams({
      name: this.name,
      room: this.room,
      ...(this.session && { session: this.session }),
      ...(this.epoch && { epoch: this.epoch, since: this.seq }),
    });
  }

  /** True if the present connection is not in the room yet. */
  get pendingWelcome() {
    return this.toCome === null;
  }

  /** True if the history is complete, so that messages may be sent. */
  get caughtUp() {
    return this.toCome === 0;
  }

  /** True if a message has waited too long for its confirmation. */
  isOverdue(now) {
    const isLate = ({ sent, failed }) => sent && !failed && sent < now - CONFIRM_MS;
    return this.caughtUp && [...this.pending.values()].some(isLate);
  }

  mentions(content) {
    return content.toLowerCase().includes(`@${this.name.toLowerCase()}`);
  }

  /** The names of other members that begin with `stem`, whatever its case. */
  namesBeginningWith(stem) {
    const fits = (name) => name !== this.name && name.toLowerCase().startsWith(stem.toLowerCase());
    return [...this.members.values()].filter(fits).sort();
  }

  // ----------------------------------------------------------------------- between two connections

  /** Ends the present connection. */
  cut() {
    this.toCome = null;
  }

  /** Changes the room. What was known and owed there is forgotten. */
  moveTo(room) {
    if (room === this.room) return false;
    Object.assign(this, { room, session: null, epoch: null, seq: 0, seqBeforeReload: 0 });
    Object.assign(this, { publicForgotten: false, privateForgotten: false });
    this.members.clear();
    this.pending.clear();
    this.delivered.clear();
    return true;
  }

  /** What a reloaded page needs to take this one's place. */
  toSeat() {
    const { room, name, session, epoch } = this;
    const seen = Math.max(this.seq, this.seqBeforeReload);
    return { room, name, session, epoch, seen, unsettled: [...this.pending.values()] };
  }

  /** Takes the place of the page that made `seat`. */
  resume({ room, name, session, epoch, seen, unsettled }) {
    Object.assign(this, { room, name, session, epoch, seqBeforeReload: seen });
    for (const item of unsettled) this.pending.set(item.message.ref, item);
  }

  // --------------------------------------------------------------------------------- from the user

  /** Sends a message to one member, or to everyone if `to` is null. It waits if it has to. */
  say(to, content, now) {
    const turn = new Turn();
    this.#refs += 1;
    const ref = `${this.#refPrefix}-${this.#refs}`;
    const address = to === null ? { type: 'public' } : { type: 'private', to };
    const item = this.#hold({ ...address, content, ref }, turn);
    if (this.caughtUp) this.#transmit(item, turn, now);
    return turn;
  }

  /** Sends a message again that has failed. */
  retry(item, now) {
    const turn = new Turn();
    Object.assign(item, { sent: 0, failed: '' });
    turn.changed.add(item);
    if (this.caughtUp) this.#transmit(item, turn, now);
    return turn;
  }

  /** Gives a message up. */
  discard(item, turn = new Turn()) {
    this.pending.delete(item.message.ref);
    turn.changed.add(item);
    return turn;
  }

  /** Gives up the oldest message that was sent: the server closed the connection because of it. */
  failOldest(why) {
    const turn = new Turn();
    const oldest = [...this.pending.values()].find(({ sent, failed }) => sent && !failed);
    if (oldest) this.#fail(oldest, why, turn);
    return turn;
  }

  // ------------------------------------------------------------------------------- from the server

  receive(message, now) {
    const turn = new Turn();
    switch (message.type) {
      case 'welcome': this.#welcome(message, turn, now); break;
      case 'public': this.#public(message, turn, now); break;
      case 'private': this.#show(message, turn, true); break;
      case 'join': this.#join(message, turn); break;
      case 'leave': this.#leave(message, turn); break;
      case 'error': this.#error(message, turn); break;
    }
    return turn;
  }

  #welcome({ user, users, epoch, seq, history, session }, turn, now) {
    this.name = user;
    this.members = new Map(users.map((name) => [name.toLowerCase(), name]));
    turn.membersChanged = true;
    if (epoch !== this.epoch) {
      if (this.epoch !== null) turn.shown.push({ type: 'divider', content: texts.restarted });
      this.seq = 0;
      this.seqBeforeReload = 0;
    } else if (seq - history > Math.max(this.seq, this.seqBeforeReload)) {
      this.publicForgotten = true;
      turn.shown.push({ type: 'divider', content: texts.gap });
    }
    // Only a server that knows the session knows which private messages have arrived.
    if (session !== this.session) this.privateForgotten = true;
    Object.assign(this, { session, epoch, toCome: history });
    this.#catchUp(turn, now);
  }

  #public(message, turn, now) {
    const live = this.caughtUp;
    if (message.seq > this.seq) {
      this.seq = message.seq;
      this.#show(message, turn, live);
    } else {
      // It is in the log already, but its confirmation was lost with the connection.
      this.#settle(message, turn);
    }
    if (this.toCome > 0) {
      this.toCome -= 1;
      this.#catchUp(turn, now);
    }
  }

  #show(message, turn, live) {
    this.#settle(message, turn);
    turn.shown.push(message);
    if (live && message.user !== this.name) turn.alert = message;
  }

  #join(message, turn) {
    const key = message.user.toLowerCase();
    // The server announces this member too, after the history.
    if (this.members.has(key)) return;
    this.members.set(key, message.user);
    turn.membersChanged = true;
    turn.shown.push(message);
  }

  #leave(message, turn) {
    this.members.delete(message.user.toLowerCase());
    turn.membersChanged = true;
    turn.shown.push(message);
  }

  #error({ code, content, ref }, turn) {
    const why = texts.errors[code] || content;
    const item = this.pending.get(ref);
    const delivered = this.delivered.get(ref);
    if (item) this.#fail(item, why, turn);
    else if (delivered) this.#retract(delivered, turn);
    // Before the welcome it is about the connection, and the close that follows says the same.
    else if (!this.pendingWelcome) turn.shown.push({ type: 'note', content: why });
  }

  // ------------------------------------------------------------------------------ pending messages

  #hold(message, turn) {
    const item = { message, sent: 0, by: this.name, failed: '' };
    this.pending.set(message.ref, item);
    turn.changed.add(item);
    return item;
  }

  #transmit(item, turn, now) {
    Object.assign(item, { sent: now, by: this.name, failed: '' });
    turn.changed.add(item);
    turn.send.push(item.message);
  }

  #fail(item, why, turn) {
    item.failed = why;
    turn.changed.add(item);
  }

  /** Confirms a message, if it is this member's. Others may use the same references. */
  #settle({ ref, user, type, to, content }, turn) {
    const item = this.pending.get(ref);
    if (!item || item.by !== user) return;
    if (type === 'private') {
      this.delivered.set(ref, { type, to, content, ref });
      if (this.delivered.size > DELIVERED_MAX) {
        this.delivered.delete(this.delivered.keys().next().value);
      }
    }
    this.discard(item, turn);
  }

  /** Takes back a confirmed private message: its recipient was away, and has not returned. */
  #retract(message, turn) {
    this.delivered.delete(message.ref);
    turn.retracted = message.ref;
    this.#fail(this.#hold(message, turn), texts.notDelivered(message.to), turn);
  }

  /**
   * Once the history is complete, sends what has no confirmation. What the server may have
   * forgotten is not sent: if it had arrived, it would be shown twice.
   */
  #catchUp(turn, now) {
    if (!this.caughtUp) return;
    turn.caughtUp = true;
    for (const item of this.pending.values()) {
      const isPrivate = item.message.type === 'private';
      const isForgotten = isPrivate ? this.privateForgotten : this.publicForgotten;
      if (item.failed) continue;
      if (item.sent && isForgotten) this.#fail(item, texts.unconfirmed, turn);
      else this.#transmit(item, turn, now);
    }
    this.publicForgotten = false;
    this.privateForgotten = false;
  }
}

/** Whether and when to connect again. */
export class Reconnection {
  /** Attempts since a connection last stayed open for a while. */
  attempts = 0;
  /** True if the connection looks open but may be dead. */
  suspect = false;
  /** True if another tab has taken over the session. */
  replaced = false;
  /** When an attempt last ended without a welcome. */
  orphanedAt = -Infinity;
  #tickedAt;

  constructor(now) {
    this.#tickedAt = now;
  }

  /** Notices, once a second, if the connection may be dead. Returns true if it may. */
  tick(now, overdue) {
    const asleep = now - this.#tickedAt > ASLEEP_MS;
    this.#tickedAt = now;
    if (asleep || overdue) this.suspect = true;
    return asleep || overdue;
  }

  /**
   * Decides what to do after the connection was closed with `code`. `chance` is between 0 and 1.
   *
   * `{ next: 'wait', ms }` to connect again; `{ next: 'refused' }` if the user has to change
   * something first; `{ next: 'replaced' }` if the user has to choose between two tabs.
   */
  closed(code, { welcomed, now, chance }) {
    if (code === CLOSE.replaced) {
      // If both tabs tried again, they would take the session from each other for ever.
      this.replaced = true;
      return { next: 'replaced' };
    }
    // The name may be taken by an attempt of this tab whose welcome got lost.
    const ownName = code === CLOSE.nameTaken && now - this.orphanedAt < ORPHAN_MS;
    if (REFUSALS.has(code)) {
      if (!ownName) return { next: 'refused' };
    } else if (!welcomed) {
      this.orphanedAt = now;
    }
    const longest = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.attempts);
    this.attempts += 1;
    // Half of it is left to chance, so that the members of a room do not come back all at once.
    return { next: 'wait', ms: longest * (0.5 + chance / 2) };
  }
}

/**
 * Reads what the user wrote: `{ to, content }`, where `to` is null for everyone. Returns null if
 * there is nothing to send. `names` are the members, `recipient` is who gets it by default.
 */
export function parse(text, recipient, names) {
  const content = text.trimEnd();
  if (content.trim() === '') return null;
  const command = /^\/msg\s+(.*)$/s.exec(content);
  return command ? splitRecipient(command[1], names) : { to: recipient, content };
}

/** Splits what follows /msg. Names may contain spaces, so the longest that fits is taken. */
function splitRecipient(rest, names) {
  const fits = (name) => {
    const beginning = rest.slice(0, name.length).toLowerCase();
    return beginning === name.toLowerCase() && /^\s/.test(rest.slice(name.length));
  };
  const longest = [...names].filter(fits).sort((a, b) => b.length - a.length)[0];
  // If none fits, the first word is taken, and the server replies that nobody has that name.
  const to = longest ?? /^\S+(?=\s)/.exec(rest)?.[0];
  const content = to && rest.slice(to.length).trim();
  return content ? { to, content } : null;
}
