// Every word that the page shows. To add a language, add a table with the same keys.

/** A few names, and the number of those that are left out: "Ann, Bob and 3 more". */
const list = (names, more) => names.join(', ') + (more > 0 ? ` and ${more} more` : '');
/** The same in Chinese, where a space separates a name, but not a number, from what follows. */
const listZh = (names, more) =>
  `${names.join('、')} ${more > 0 ? `等 ${names.length + more} 人` : ''}`;

export const TEXTS = {
  en: {
    yourName: 'Your name',
    roomName: 'Room',
    joinRoom: 'Join',
    copyLink: 'Copy link',
    copied: 'Copied',
    settings: 'Settings',
    playSound: 'Play a sound',
    showNotifications: 'Desktop notifications',
    noNotifications: 'Your browser does not allow notifications for this page.',
    changeRoom: 'Change name or room',
    members: 'Members',
    count: (n) => `${n} here`,
    more: (n) => `and ${n} more`,
    yourself: ' (you)',
    writeTo: (name) => `Send ${name} a private message`,

    message: 'Message',
    typeHere: 'Write a message',
    send: 'Send',
    hint:
      'Enter sends the message. Shift+Enter starts a new line. Tab completes names. ' +
      '/msg NAME TEXT sends a private message.',
    toOnly: (name) => `To ${name}: only the two of you will see this`,
    backToAll: 'Write to everyone again',

    conversation: 'Conversation',
    you: 'you',
    privateFrom: (from, to) => `${from} → ${to} · only the two of you see this`,
    joined: (names, more) => `${list(names, more)} joined`,
    left: (names, more) => `${list(names, more)} left`,
    visited: (names, more) => `${list(names, more)} came and went`,
    newMessages: (n) => (n === 1 ? '1 new message ↓' : `${n} new messages ↓`),
    gap: 'Some messages are missing here: the server no longer has them.',
    restarted: 'The room has been restarted. Earlier messages are no longer on the server.',

    unconfirmed: 'Messages being sent',
    sending: 'Sending…',
    retry: 'Send again',
    discard: 'Discard',
    uncertain: 'This may or may not have been delivered.',
    notDelivered: (name) => `${name} left before this could be delivered.`,
    errors: {
      no_such_user: 'Nobody here has that name.',
      slowed_down: 'You write faster than this room allows. Your messages will arrive one by one.',
      empty_content: 'The message is empty.',
      too_big: 'The message is too long.',
      bad_json: 'The server could not read this message.',
      bad_request: 'The server could not read this message.',
      unknown_type: 'The server could not read this message.',
    },

    connecting: 'Connecting…',
    offline: 'You are offline. What you write will be sent when you are back online.',
    reconnectingIn: (seconds) => `Connection lost. Trying again in ${seconds} s.`,
    tryNow: 'Try now',
    elsewhere: 'This conversation is open in another tab. What you write here will wait.',
    continueHere: 'Continue here',

    refusals: {
      invalid_name: 'A name has 1 to 32 characters, none of them invisible. Please change it.',
      invalid_room:
        'A room’s name has 1 to 64 letters or digits, _ and -, without spaces. Please change it.',
      name_taken:
        'Somebody in this room has that name or one that looks like it. Please choose another.',
      room_limit: 'The server has no place for another room. Please join an existing one.',
    },
  },

  zh: {
    yourName: '昵称',
    roomName: '房间',
    joinRoom: '加入',
    copyLink: '复制链接',
    copied: '已复制',
    settings: '设置',
    playSound: '新消息提示音',
    showNotifications: '桌面通知',
    noNotifications: '浏览器未允许此页面显示通知。',
    changeRoom: '更换昵称或房间',
    members: '成员',
    count: (n) => `${n} 人在线`,
    more: (n) => `还有 ${n} 人`,
    yourself: '（你）',
    writeTo: (name) => `给 ${name} 发私信`,

    message: '消息',
    typeHere: '输入消息',
    send: '发送',
    hint: '按 Enter 发送，Shift+Enter 换行，Tab 补全昵称。输入“/msg 昵称 内容”可发送私信。',
    toOnly: (name) => `发给 ${name} 的私信，仅你们两人可见`,
    backToAll: '改为发给所有人',

    conversation: '聊天记录',
    you: '你',
    privateFrom: (from, to) => `${from} → ${to} · 仅你们两人可见`,
    joined: (names, more) => `${listZh(names, more)}加入了房间`,
    left: (names, more) => `${listZh(names, more)}离开了房间`,
    visited: (names, more) => `${listZh(names, more)}来过，又离开了`,
    newMessages: (n) => `${n} 条新消息 ↓`,
    gap: '部分消息已不在服务器上，无法显示。',
    restarted: '房间已重启，此前的消息已不在服务器上。',

    unconfirmed: '正在发送的消息',
    sending: '发送中…',
    retry: '重新发送',
    discard: '删除',
    uncertain: '无法确认这条消息是否已送达。',
    notDelivered: (name) => `${name} 已离开，这条消息未能送达。`,
    errors: {
      no_such_user: '房间里没有人用这个昵称。',
      slowed_down: '你发得太快了。消息会按顺序陆续送达。',
      empty_content: '消息为空。',
      too_big: '消息过长。',
      bad_json: '服务器无法识别这条消息。',
      bad_request: '服务器无法识别这条消息。',
      unknown_type: '服务器无法识别这条消息。',
    },

    connecting: '正在连接…',
    offline: '网络已断开。你写的消息会在恢复连接后发送。',
    reconnectingIn: (seconds) => `连接已断开，${seconds} 秒后重试。`,
    tryNow: '立即重试',
    elsewhere: '聊天已在另一个标签页中打开，在这里写的消息暂不发送。',
    continueHere: '在此继续',

    refusals: {
      invalid_name: '昵称须为 1 到 32 个字符，且不能含有不可见字符。请换一个。',
      invalid_room: '房间名须为 1 到 64 个文字、数字、_ 或 -，不能有空格。请换一个。',
      name_taken: '房间里已有人使用这个昵称，或看起来一样的昵称。请换一个。',
      room_limit: '服务器无法再开新房间，请加入已有的房间。',
    },
  },
};

const preferred = (navigator.language || '').toLowerCase().split('-')[0];
export const language = preferred in TEXTS ? preferred : 'en';
export const texts = TEXTS[language];
