// Command sdk uses MessageLoop's Go SDK v0.1.1, unchanged, over each of its transports: connect with an
// auto-subscription, publish, receive. It prints "ok <transport>" for each, and exits with 1 if one failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	messageloopgo "github.com/messageloopio/messageloop/sdks/go"
)

// patience is how long one transport may take.
const patience = 15 * time.Second

func main() {
	url := flag.String("ws", "ws://127.0.0.1:9080/ws", "URL of the gateway's WebSocket")
	address := flag.String("grpc", "127.0.0.1:9090", "address of the gateway's gRPC listener")
	flag.Parse()

	overWebSocket := func(encoding messageloopgo.EncodingType) dial {
		return func(options ...messageloopgo.Option) (messageloopgo.Client, error) {
			return messageloopgo.Dial(*url, append(options, messageloopgo.WithEncoding(encoding))...)
		}
	}
	overGRPC := func(options ...messageloopgo.Option) (messageloopgo.Client, error) {
		return messageloopgo.DialGRPC(*address, options...)
	}
	failed := false
	for _, transport := range []struct {
		name string
		dial dial
	}{
		{"json-ws", overWebSocket(messageloopgo.EncodingJSON)},
		{"proto-ws", overWebSocket(messageloopgo.EncodingProtobuf)},
		{"grpc", overGRPC},
	} {
		if err := roundTrip(transport.name, transport.dial); err != nil {
			fmt.Printf("FAIL %s: %v\n", transport.name, err)
			failed = true
			continue
		}
		fmt.Printf("ok %s\n", transport.name)
	}
	if failed {
		os.Exit(1)
	}
}

type dial func(...messageloopgo.Option) (messageloopgo.Client, error)

// roundTrip publishes an event of each kind that the SDK makes, and awaits them all, in order.
func roundTrip(name string, dial dial) error {
	channel := fmt.Sprintf("go.sdk.%s.%d", name, time.Now().UnixNano())
	client, err := dial(
		messageloopgo.WithClientID("sdk-"+name),
		messageloopgo.WithAutoSubscribe(channel),
		messageloopgo.WithPingInterval(time.Second),
	)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer client.Close()

	events := make(chan *cloudevents.Event, 16)
	errs := make(chan error, 16)
	client.OnMessage(func(received []*cloudevents.Event) {
		for _, event := range received {
			events <- event
		}
	})
	client.OnError(func(err error) { errs <- err })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if client.SessionID() == "" || !client.IsConnected() {
		return fmt.Errorf("connected without a session")
	}

	asJSON, err := messageloopgo.NewJSONMessage("note.added", map[string]any{"n": 1})
	if err != nil {
		return err
	}
	for _, sent := range []*cloudevents.Event{
		messageloopgo.NewCloudEvent("b1", "/client/example", "chat.message", []byte("bytes")),
		messageloopgo.NewTextCloudEvent("t1", "/client/example", "chat.message", "text"),
		asJSON,
	} {
		if err := client.Publish(channel, sent); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		select {
		case got := <-events:
			if got.ID() != sent.ID() || got.Source() != sent.Source() || got.Type() != sent.Type() ||
				got.DataContentType() != sent.DataContentType() || string(got.Data()) != string(sent.Data()) {
				return fmt.Errorf("sent\n%s\ngot\n%s", sent, got)
			}
		case err := <-errs:
			return fmt.Errorf("while waiting for %s: %w", sent.ID(), err)
		case <-ctx.Done():
			return fmt.Errorf("%s did not arrive within %v", sent.ID(), patience)
		}
	}
	return nil
}
