// A chat room the way Go programmers build one: a hub, and for each client a goroutine that reads
// and one that writes. `make bench-peers` compares parlour with it. Usage: go-chat ADDRESS:PORT
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	queueEntries = 256
	writeTimeout = 10 * time.Second
	pongTimeout  = 75 * time.Second
	pingInterval = 30 * time.Second
)

type client struct {
	conn       *websocket.Conn
	name, room string
	send       chan []byte
}

type publication struct {
	room  string
	frame []byte
}

type hub struct {
	register, unregister chan *client
	publish              chan publication
}

func (h *hub) run() {
	rooms := map[string]map[*client]struct{}{}
	remove := func(c *client) {
		if _, here := rooms[c.room][c]; here {
			delete(rooms[c.room], c)
			close(c.send)
		}
	}
	for {
		select {
		case c := <-h.register:
			if rooms[c.room] == nil {
				rooms[c.room] = map[*client]struct{}{}
			}
			rooms[c.room][c] = struct{}{}
		case c := <-h.unregister:
			remove(c)
		case p := <-h.publish:
			for c := range rooms[p.room] {
				select {
				case c.send <- p.frame:
				default:
					remove(c)
				}
			}
		}
	}
}

type public struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Content string `json:"content"`
}

func (c *client) readPump(h *hub) {
	defer func() {
		h.unregister <- c
		c.conn.Close()
	}()
	alive := func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongTimeout)) }
	alive("")
	c.conn.SetPongHandler(alive)
	for {
		var message public
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		if json.Unmarshal(text, &message) != nil {
			continue
		}
		message.User = c.name
		frame, _ := json.Marshal(message)
		h.publish <- publication{c.room, frame}
	}
}

func (c *client) writePump() {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	defer c.conn.Close()
	for {
		kind, frame, open := websocket.PingMessage, []byte(nil), true
		select {
		case frame, open = <-c.send:
			kind = websocket.TextMessage
			if !open {
				kind = websocket.CloseMessage
			}
		case <-ticker.C:
		}
		c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if c.conn.WriteMessage(kind, frame) != nil || !open {
			return
		}
	}
}

func main() {
	h := &hub{make(chan *client), make(chan *client), make(chan publication)}
	go h.run()
	upgrader := websocket.Upgrader{}
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		query := r.URL.Query()
		c := &client{conn, query.Get("name"), query.Get("room"), make(chan []byte, queueEntries)}
		h.register <- c
		go c.writePump()
		go c.readPump(h)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
