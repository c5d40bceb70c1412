package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
)

// patience is how long anything may take before the run has failed.
const patience = 15 * time.Second

const method = "/messageloop.v1.MessagingService/MessageLoop"

// link carries frames over one transport.
type link interface {
	send(frame []byte) error
	// recv returns the next frame; at the end errEnded or closed.
	recv() ([]byte, error)
	// ping sends a ping below the protocol and reports whether the transport has such a thing.
	ping(seen func()) (bool, error)
	hangUp()
}

// closed is the end of a WebSocket.
type closed struct {
	code   int
	reason string
}

func (c closed) Error() string { return fmt.Sprintf("closed with %d %q", c.code, c.reason) }

// errEnded is the end of a stream without a code of its own.
var errEnded = errors.New("the stream ended")

// transport is one way to reach the gateway.
type transport struct {
	name   string
	asJSON bool
	dial   func() (link, error)
}

type wsLink struct {
	socket  *websocket.Conn
	message int
}

func overWebSocket(name, url, offer, chosen string, message int) transport {
	dial := func() (link, error) {
		dialer := websocket.Dialer{HandshakeTimeout: patience}
		if offer != "" {
			dialer.Subprotocols = []string{offer}
		}
		socket, _, err := dialer.Dial(url, nil)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", url, err)
		}
		if socket.Subprotocol() != chosen {
			return nil, fmt.Errorf("offered %q, got %q", offer, socket.Subprotocol())
		}
		return &wsLink{socket, message}, nil
	}
	return transport{name: name, asJSON: message == websocket.TextMessage, dial: dial}
}

func (l *wsLink) send(frame []byte) error {
	return l.socket.WriteMessage(l.message, frame)
}

func (l *wsLink) recv() ([]byte, error) {
	if err := l.socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	kind, frame, err := l.socket.ReadMessage()
	var end *websocket.CloseError
	if errors.As(err, &end) && end.Code != websocket.CloseAbnormalClosure {
		return nil, closed{end.Code, end.Text}
	}
	if err != nil {
		return nil, err
	}
	if kind != l.message {
		return nil, fmt.Errorf("a message of type %d, not %d", kind, l.message)
	}
	return frame, nil
}

func (l *wsLink) ping(seen func()) (bool, error) {
	l.socket.SetPongHandler(func(data string) error {
		if data == "there?" {
			seen()
		}
		return nil
	})
	return true, l.socket.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(patience))
}

func (l *wsLink) hangUp() {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = l.socket.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second))
	_ = l.socket.Close()
}

// rawCodec passes frames through: what they hold is checked by the schema, not by generated code.
type rawCodec struct{ name string }

var _ encoding.Codec = rawCodec{}

func (rawCodec) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (c rawCodec) Name() string { return c.name }

type grpcLink struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelFunc
}

// overGRPC speaks with the content type application/grpc+<codec>.
func overGRPC(name, address, codec string) transport {
	dial := func() (link, error) {
		conn, err := grpc.NewClient(address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{codec})))
		if err != nil {
			return nil, err
		}
		context, cancel := context.WithCancel(context.Background())
		both := &grpc.StreamDesc{StreamName: "MessageLoop", ClientStreams: true, ServerStreams: true}
		stream, err := conn.NewStream(context, both, method)
		if err != nil {
			cancel()
			return nil, errors.Join(fmt.Errorf("open %s: %w", method, err), conn.Close())
		}
		return &grpcLink{conn, stream, cancel}, nil
	}
	return transport{name: name, asJSON: false, dial: dial}
}

func (l *grpcLink) send(frame []byte) error {
	return l.stream.SendMsg(&frame)
}

func (l *grpcLink) recv() ([]byte, error) {
	late := time.AfterFunc(patience, l.cancel)
	defer late.Stop()
	var frame []byte
	err := l.stream.RecvMsg(&frame)
	if errors.Is(err, io.EOF) {
		return nil, errEnded
	}
	return frame, err
}

func (l *grpcLink) ping(func()) (bool, error) { return false, nil }

func (l *grpcLink) hangUp() {
	_ = l.stream.CloseSend()
	_ = l.conn.Close()
	l.cancel()
}
