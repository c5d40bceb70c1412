package main

import (
	"fmt"
	"unicode/utf8"
)

var refusalChecks = []check{
	{"refuses bad channels and goes on", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		for _, bad := range []string{"", "a..b", ".a", "a b", "a.b*", "a.**.b"} {
			c.refused("BAD_REQUEST", `"subscribe":{"subscriptions":`+subscriptions([]string{bad})+`}`)
		}
		c.refused("BAD_REQUEST", fmt.Sprintf(`"channel":"a.*","publish":%s`, note))
		c.refused("BAD_REQUEST", fmt.Sprintf(`"channel":"a..b","publish":%s`, note))
		c.alive()
	}},
	{"subscribes all of a batch or nothing", func(s *schema, t transport) {
		good, other := fresh("good"), fresh("other")
		c := connected(s, t, other)
		defer c.hangUp()
		c.refused("BAD_REQUEST", `"subscribe":{"subscriptions":`+subscriptions([]string{good, "a..b"})+`}`)
		c.publish(good, note)
		c.publish(other, note)
		got := c.delivery().text("publication", "messages", 0, "channel")
		must(got == other, "subscribed to %s by a refused batch", got)
	}},
	{"refuses events without required attributes and goes on", func(s *schema, t transport) {
		channel := fresh("invalid")
		c := connected(s, t, channel)
		defer c.hangUp()
		for _, event := range []string{
			`{}`,
			`{"source":"s","spec_version":"1.0","type":"t"}`,
			`{"id":"e","source":"s","spec_version":"1.0"}`,
			`{"id":"e","source":"s","spec_version":"1.0","type":"t","attributes":{"Not-Allowed":{"ce_boolean":true}}}`,
		} {
			c.refused("BAD_REQUEST", fmt.Sprintf(`"channel":%q,"publish":%s`, channel, event))
		}
		offset := c.publish(channel, note)
		must(offset == "1", "a refused event took an offset: the next has %s", offset)
	}},
	{"has no route for an RPC", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		c.refused("NO_PROXY", fmt.Sprintf(`"channel":"users","method":"get","rpc_request":%s`, note))
		c.alive()
	}},
	{"refuses an envelope that it does not know", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		c.refused("NOT_SUPPORTED", "")
		c.alive()
	}},
	{"ignores a survey response that nobody asked for", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		c.send(fmt.Sprintf(`"survey_response":{"request_id":"none","payload":%s}`, note))
		c.alive()
	}},
	{"survives frames that cannot be decoded", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		for _, garbage := range []string{"{", "null and void", "\x0a\xff\xff\xff\xff\x0f", "\xff"} {
			if t.asJSON && !utf8.ValidString(garbage) {
				// Not UTF-8: that is for WebSocket itself to refuse.
				continue
			}
			c.sendRaw([]byte(garbage))
			answer := c.await("an error", func(f *frame) bool { return f.kind == "error" })
			must(answer.text("error", "code") == "BAD_REQUEST", "error %v", answer.at("error"))
			c.alive()
		}
	}},
	{"closes a second connect with 3501", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		c.send(`"connect":{"client_id":"again"}`)
		c.closedWith(3501)
	}},
	{"closes anything before connect with 3502", func(s *schema, t transport) {
		c := open(s, t)
		defer c.hangUp()
		c.send(`"ping":{}`)
		c.closedWith(3502)
	}},
}
