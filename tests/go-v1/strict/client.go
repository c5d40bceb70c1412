package main

import (
	"errors"
	"fmt"
)

// client is one v1 session; its checks panic with a failure that run reports.
type client struct {
	link   link
	schema *schema
	asJSON bool
	// unread holds frames that came while another was awaited.
	unread []*frame
	next   int
}

type failure struct{ text string }

func must(ok bool, format string, args ...any) {
	if !ok {
		panic(failure{fmt.Sprintf(format, args...)})
	}
}

func open(s *schema, t transport) *client {
	link, err := t.dial()
	must(err == nil, "%v", err)
	return &client{link: link, schema: s, asJSON: t.asJSON}
}

// connected opens a session that is subscribed to these channels from the start.
func connected(s *schema, t transport, channels ...string) *client {
	c := open(s, t)
	answer := c.ask(fmt.Sprintf(`"connect":{"client_id":"go","client_type":"sdk","version":"1.0.0","subscriptions":%s}`,
		subscriptions(channels)))
	must(answer.kind == "connected", "connect was answered by %s %v", answer.kind, answer.fields)
	must(answer.text("connected", "session_id") != "", "connected without session_id")
	must(answer.at("connected", "publications") == nil, "connected.publications is not empty")
	mustList(answer, "connected", channels)
	return c
}

func (c *client) hangUp() { c.link.hangUp() }

// send sends a request, written as the members of its JSON object, and returns its id.
func (c *client) send(request string) string {
	c.next++
	id := fmt.Sprintf("req-%d", c.next)
	text := fmt.Sprintf(`{"id":%q,"metadata":{"trace":%q}}`, id, id)
	if request != "" {
		text = fmt.Sprintf(`{"id":%q,"metadata":{"trace":%q},%s}`, id, id, request)
	}
	bytes, err := c.schema.encode(text, c.asJSON)
	must(err == nil, "%v", err)
	c.sendRaw(bytes)
	return id
}

func (c *client) sendRaw(frame []byte) {
	err := c.link.send(frame)
	must(err == nil, "send: %v", err)
}

// ask sends a request and returns the answer with its id.
func (c *client) ask(request string) *frame {
	id := c.send(request)
	answer := c.await("the answer to "+request, func(f *frame) bool { return f.text("id") == id })
	must(answer.text("metadata", "trace") == id, "the answer does not carry the request's metadata: %v", answer.fields)
	return answer
}

// refused asks for something that has to fail with this code.
func (c *client) refused(code, request string) {
	answer := c.ask(request)
	must(answer.kind == "error", "%s was answered by %s", request, answer.kind)
	must(answer.text("error", "code") == code, "%s: error %v, not %s", request, answer.at("error"), code)
	must(answer.text("error", "message") != "", "%s: an error without a message", request)
}

// alive shows that the connection goes on.
func (c *client) alive() {
	answer := c.ask(`"ping":{}`)
	must(answer.kind == "pong", "ping was answered by %s", answer.kind)
}

// publish publishes an event and returns the offset of its ack.
func (c *client) publish(channel, event string) string {
	answer := c.ask(fmt.Sprintf(`"channel":%q,"publish":%s`, channel, event))
	must(answer.kind == "publish_ack", "publish was answered by %s %v", answer.kind, answer.at("error"))
	return answer.text("publish_ack", "offset")
}

// delivery is the next publication.
func (c *client) delivery() *frame {
	next := c.await("a publication", func(f *frame) bool { return f.kind == "publication" })
	messages, _ := next.at("publication", "messages").([]any)
	must(len(messages) == 1, "a publication of %d messages", len(messages))
	must(next.text("id") != "" && next.text("time") != "", "a publication without id or time: %v", next.fields)
	must(next.text("publication", "messages", 0, "id") != "", "a message without id: %v", next.fields)
	must(next.at("publication", "messages", 0, "payload") != nil, "a message without payload: %v", next.fields)
	return next
}

func (c *client) await(what string, wanted func(*frame) bool) *frame {
	for i, frame := range c.unread {
		if wanted(frame) {
			c.unread = append(c.unread[:i:i], c.unread[i+1:]...)
			return frame
		}
	}
	for {
		frame, err := c.read()
		must(err == nil, "%v while waiting for %s", err, what)
		if wanted(frame) {
			return frame
		}
		c.unread = append(c.unread, frame)
	}
}

// read reads one frame from the wire, strictly.
func (c *client) read() (*frame, error) {
	bytes, err := c.link.recv()
	if err != nil {
		return nil, err
	}
	frame, err := c.schema.decode(bytes, c.asJSON)
	must(err == nil, "%v", err)
	return frame, nil
}

// closedWith awaits the end: a close code, or without such a thing an error that carries it.
func (c *client) closedWith(code int) {
	last := &frame{}
	for {
		next, err := c.read()
		var end closed
		switch {
		case err == nil:
			last = next
			continue
		case errors.As(err, &end):
			must(end.code == code, "%v, not %d", end, code)
		default:
			must(last.text("error", "code") == "DISCONNECT_ERROR", "ended by %v after %s %v", err, last.kind, last.fields)
			must(last.text("error", "type") == "transport_error", "error type %q", last.text("error", "type"))
			must(carries(last.at("error", "metadata"), code), "no code %d in %v", code, last.fields)
		}
		return
	}
}

// carries tells whether a value of the object is this number, be it as a number or as text.
func carries(metadata any, code int) bool {
	object, _ := metadata.(map[string]any)
	for _, value := range object {
		if fmt.Sprint(value) == fmt.Sprint(code) {
			return true
		}
	}
	return false
}

func subscriptions(channels []string) string {
	text := "["
	for i, channel := range channels {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(`{"channel":%q}`, channel)
	}
	return text + "]"
}

// mustList checks that an answer lists exactly these channels, in any order.
func mustList(answer *frame, kind string, channels []string) {
	must(answer.kind == kind, "answered by %s %v, not %s", answer.kind, answer.at("error"), kind)
	listed, _ := answer.at(kind, "subscriptions").([]any)
	must(len(listed) == len(channels), "%s lists %v, not %v", kind, listed, channels)
	for _, channel := range channels {
		found := false
		for i := range listed {
			found = found || answer.text(kind, "subscriptions", i, "channel") == channel
		}
		must(found, "%s lists %v, without %s", kind, listed, channel)
	}
}
