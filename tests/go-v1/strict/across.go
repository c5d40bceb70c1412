package main

import "fmt"

// across checks that all transports meet in one channel: everyone publishes, everyone receives everything, intact.
func across(s *schema, transports []transport) {
	channel := fresh("across")
	clients := make([]*client, len(transports))
	for i, t := range transports {
		clients[i] = connected(s, t, channel)
		defer clients[i].hangUp()
	}
	next := 1
	for _, from := range clients {
		for _, event := range events {
			offset := from.publish(channel, event.text)
			must(offset == fmt.Sprint(next), "publication %d got offset %s", next, offset)
			next++
			for i, to := range clients {
				got := to.delivery()
				must(got.text("publication", "messages", 0, "offset") == offset,
					"%s: acked %s, delivered %v", transports[i].name, offset, got.fields)
				mustBeEqual(to, event.text, got)
			}
		}
	}
	protoData(clients, channel)
}

// protoData publishes data of a message type. JSON has no form for it without the schema of that type: it arrives there
// as the bytes, and its type as dataschema.
func protoData(clients []*client, channel string) {
	packed := `{"id":"e9","source":"/go/1","spec_version":"1.0","type":"packed",
		"attributes":{"datacontenttype":{"ce_string":"application/protobuf"}},
		"proto_data":{"@type":"type.googleapis.com/messageloop.v1.SubRefresh","channels":["x"]}}`
	asBytes := `{"id":"e9","source":"/go/1","spec_version":"1.0","type":"packed","binary_data":"CgF4","attributes":{
		"datacontenttype":{"ce_string":"application/protobuf"},
		"dataschema":{"ce_uri":"type.googleapis.com/messageloop.v1.SubRefresh"}}}`
	var from *client
	for _, c := range clients {
		if !c.asJSON {
			from = c
		}
	}
	must(from != nil, "no transport with protobuf")
	from.publish(channel, packed)
	for _, to := range clients {
		if to.asJSON {
			mustBeEqual(to, asBytes, to.delivery())
		} else {
			mustBeEqual(to, packed, to.delivery())
		}
	}
}
