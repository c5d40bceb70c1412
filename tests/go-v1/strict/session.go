package main

import (
	"fmt"
	"reflect"
	"sync/atomic"
)

// check is one thing that a v1 client relies on.
type check struct {
	name string
	run  func(s *schema, t transport)
}

var channelNumber atomic.Int64

// fresh returns a channel that no other check uses.
func fresh(name string) string {
	return fmt.Sprintf("go.%s.n%d", name, channelNumber.Add(1))
}

const note = `{"id":"e1","source":"/go/1","spec_version":"1.0","type":"note.added","text_data":"hello"}`

var sessionChecks = []check{
	{"connects with auto-subscriptions", func(s *schema, t transport) {
		connected(s, t, fresh("auto"), fresh("auto"), "go.pattern.**").hangUp()
	}},
	{"connects without subscriptions", func(s *schema, t transport) {
		connected(s, t).hangUp()
	}},
	{"receives what it publishes, at the acked offset", func(s *schema, t transport) {
		channel := fresh("own")
		c := connected(s, t, channel)
		defer c.hangUp()
		for i := 1; i <= 3; i++ {
			offset := c.publish(channel, note)
			got := c.delivery()
			must(got.text("publication", "messages", 0, "channel") == channel, "delivered as %v", got.fields)
			must(got.text("publication", "messages", 0, "offset") == offset, "acked %s, delivered %v", offset, got.fields)
			must(offset == fmt.Sprint(i), "offset %s of publication %d", offset, i)
		}
	}},
	{"receives what others publish, in order", func(s *schema, t transport) {
		channel := fresh("others")
		reader, writer := connected(s, t, channel), connected(s, t)
		defer reader.hangUp()
		defer writer.hangUp()
		for i := 1; i <= 50; i++ {
			writer.send(fmt.Sprintf(`"channel":%q,"publish":%s`, channel, note))
		}
		for i := 1; i <= 50; i++ {
			offset := reader.delivery().text("publication", "messages", 0, "offset")
			must(offset == fmt.Sprint(i), "publication %d has offset %s", i, offset)
		}
		writer.alive()
	}},
	{"falls back to the event's source as channel", func(s *schema, t transport) {
		channel := fresh("source")
		c := connected(s, t, channel)
		defer c.hangUp()
		answer := c.ask(fmt.Sprintf(`"publish":{"id":"e1","source":%q,"spec_version":"1.0","type":"t"}`, channel))
		must(answer.kind == "publish_ack", "answered by %s %v", answer.kind, answer.at("error"))
		must(c.delivery().text("publication", "messages", 0, "channel") == channel, "delivered elsewhere")
	}},
	{"gets no history when it subscribes late", func(s *schema, t transport) {
		channel := fresh("late")
		writer := connected(s, t)
		defer writer.hangUp()
		writer.publish(channel, note)
		reader := connected(s, t, channel)
		defer reader.hangUp()
		offset := writer.publish(channel, note)
		got := reader.delivery().text("publication", "messages", 0, "offset")
		must(offset == "2" && got == offset, "the first delivery has offset %s", got)
	}},
	{"subscribes and unsubscribes while connected", func(s *schema, t transport) {
		stays, goes := fresh("stays"), fresh("goes")
		c := connected(s, t)
		defer c.hangUp()
		both := []string{stays, goes}
		mustList(c.ask(`"subscribe":{"subscriptions":`+subscriptions(both)+`}`), "subscribe_ack", both)
		c.publish(goes, note)
		c.delivery()
		one := []string{goes}
		mustList(c.ask(`"unsubscribe":{"subscriptions":`+subscriptions(one)+`}`), "unsubscribe_ack", one)
		c.publish(goes, note)
		c.publish(stays, note)
		got := c.delivery().text("publication", "messages", 0, "channel")
		must(got == stays, "still subscribed to %s", got)
	}},
	{"subscribes to patterns", func(s *schema, t transport) {
		base := fresh("tree")
		c := connected(s, t, base+".*")
		defer c.hangUp()
		c.publish(base, note)
		c.publish(base+".leaf.deep", note)
		c.publish(base+".leaf", note)
		got := c.delivery().text("publication", "messages", 0, "channel")
		must(got == base+".leaf", "%s.* got %s", base, got)
	}},
	{"gets pong for ping, at both levels", func(s *schema, t transport) {
		c := connected(s, t)
		defer c.hangUp()
		seen := false
		sent, err := c.link.ping(func() { seen = true })
		must(err == nil, "%v", err)
		c.alive()
		must(seen == sent, "no pong below the protocol")
	}},
	{"refreshes subscriptions", func(s *schema, t transport) {
		channel := fresh("refresh")
		c := connected(s, t, channel)
		defer c.hangUp()
		answer := c.ask(fmt.Sprintf(`"sub_refresh":{"channels":[%q]}`, channel))
		must(answer.kind == "sub_refresh_ack", "answered by %s", answer.kind)
	}},
	{"delivers events as they were sent", func(s *schema, t transport) {
		channel := fresh("intact")
		c := connected(s, t, channel)
		defer c.hangUp()
		for _, event := range events {
			c.publish(channel, event.text)
			mustBeEqual(c, event.text, c.delivery())
		}
	}},
}

// events have every kind of attribute and of data that both encodings can carry.
var events = []struct{ name, text string }{
	{"text", note},
	{"binary", `{"id":"e2","source":"/go/1","spec_version":"1.0","type":"blob","binary_data":"AAECf4D/"}`},
	{"bare", `{"id":"e3","source":"urn:go","spec_version":"1.0","type":"bare"}`},
	{"empty text", `{"id":"e4","source":"urn:go","spec_version":"1.0","type":"empty","text_data":""}`},
	{"attributes", `{"id":"e5","source":"/ключ 🎈","spec_version":"1.0","type":"all","text_data":"\"quoted\" \u0000 🎈",
		"attributes":{
			"bool":{"ce_boolean":true},"int":{"ce_integer":-2147483648},"bytes":{"ce_bytes":"/w=="},
			"datacontenttype":{"ce_string":"application/json"},"dataschema":{"ce_uri":"https://example.org/s"},
			"ref":{"ce_uri_ref":"../r"},"subject":{"ce_string":"s"},"false":{"ce_boolean":false},"zero":{"ce_integer":0},
			"time":{"ce_timestamp":"2026-01-01T00:00:00.123456789Z"}}}`},
}

// mustBeEqual checks that a delivery holds this event, compared as JSON under proto names.
func mustBeEqual(c *client, event string, delivery *frame) {
	want, err := c.schema.event(event)
	must(err == nil, "%v", err)
	got := delivery.at("publication", "messages", 0, "payload")
	must(reflect.DeepEqual(want, got), "sent\n  %v\ngot\n  %v", want, got)
}
