// Command strict plays a MessageLoop v1 client with libraries that are not ours: it knows the v1 schema only, and a
// frame with anything else in it fails. It prints a line for each check and exits with 1 if any failed.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/gorilla/websocket"
)

func main() {
	url := flag.String("ws", "ws://127.0.0.1:9080/ws", "URL of the gateway's WebSocket")
	address := flag.String("grpc", "127.0.0.1:9090", "address of the gateway's gRPC listener")
	descriptors := flag.String("descriptors", "", "file with the v1 schema, a google.protobuf.FileDescriptorSet")
	flag.Parse()

	schema, err := loadSchema(*descriptors)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	json, proto := websocket.TextMessage, websocket.BinaryMessage
	main := []transport{
		overWebSocket("json-ws", *url, "messageloop+json", "messageloop+json", json),
		overWebSocket("proto-ws", *url, "messageloop+proto", "messageloop+proto", proto),
		overGRPC("grpc", *address, "proto"),
	}
	// Other ways in that must behave the same; the connection is what differs, so a few checks will do.
	variants := []transport{
		overWebSocket("json-ws-alias", *url, "messageloop", "messageloop", json),
		overWebSocket("json-ws-unasked", *url, "", "", json),
		overGRPC("grpc-codec-name", *address, "messageloop-proto"),
	}

	failed := 0
	for _, t := range main {
		for _, check := range slices.Concat(sessionChecks, cloudEventsChecks, refusalChecks) {
			failed += report(t.name, check.name, func() { check.run(schema, t) })
		}
	}
	for _, t := range variants {
		for _, check := range sessionChecks[:4] {
			failed += report(t.name, check.name, func() { check.run(schema, t) })
		}
	}
	failed += report("all", "publish and receive together in one channel", func() { across(schema, main) })
	if failed > 0 {
		fmt.Printf("%d checks failed\n", failed)
		os.Exit(1)
	}
}

// report runs a check and returns how many failed.
func report(transport, name string, run func()) (failed int) {
	defer func() {
		caught := recover()
		switch caught := caught.(type) {
		case nil:
			fmt.Printf("ok   %s: %s\n", transport, name)
		case failure:
			fmt.Printf("FAIL %s: %s: %s\n", transport, name, caught.text)
			failed = 1
		default:
			panic(caught)
		}
	}()
	run()
	return 0
}
