package main

import (
	"encoding/json"
	"fmt"

	"github.com/cloudevents/sdk-go/binding/format/protobuf/v2"
	"github.com/cloudevents/sdk-go/binding/format/protobuf/v2/pb"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"google.golang.org/protobuf/encoding/protojson"
)

// cloudEventsChecks send and read events with the CloudEvents project's own SDK, the one that the v1 client uses.
var cloudEventsChecks = []check{
	{"carries events of the CloudEvents SDK", func(s *schema, t transport) {
		channel := fresh("sdkevent")
		c := connected(s, t, channel)
		defer c.hangUp()
		for _, sent := range sdkEvents() {
			must(sent.Validate() == nil, "the test's own event: %v", sent.Validate())
			packed, err := format.ToProto(&sent)
			must(err == nil, "%v", err)
			text, err := protojson.Marshal(packed)
			must(err == nil, "%v", err)
			c.publish(channel, string(text))

			text, err = json.Marshal(c.delivery().at("publication", "messages", 0, "payload"))
			must(err == nil, "%v", err)
			packed = &pb.CloudEvent{}
			must(protojson.Unmarshal(text, packed) == nil, "not a CloudEvent: %s", text)
			got, err := format.FromProto(packed)
			must(err == nil, "%v", err)
			must(got.Validate() == nil, "delivered an invalid event: %v", got.Validate())
			must(got.String() == sent.String(), "sent\n%s\ngot\n%s", sent, got)
		}
	}},
}

func sdkEvents() []cloudevents.Event {
	fill := func(number int, contentType string, data any) cloudevents.Event {
		event := cloudevents.NewEvent()
		event.SetID(fmt.Sprint("sdk-", number))
		event.SetSource("/client/example")
		event.SetType("chat.message")
		if err := event.SetData(contentType, data); err != nil {
			panic(err)
		}
		// Data travels as bytes: the SDK does not keep whether it was given as such.
		event.DataBase64 = false
		return event
	}
	full := fill(4, cloudevents.ApplicationJSON, map[string]any{"n": 1})
	full.SetSubject("subject")
	full.SetDataSchema("https://example.org/schema")
	full.SetExtension("text", "value")
	full.SetExtension("flag", true)
	full.SetExtension("count", 7)
	return []cloudevents.Event{
		fill(1, cloudevents.TextPlain, "hello"),
		fill(2, "application/octet-stream", []byte("bytes")),
		fill(3, cloudevents.ApplicationJSON, []int{1, 2, 3}),
		full,
	}
}
