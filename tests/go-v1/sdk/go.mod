module streamgate.test/go-v1/sdk

go 1.24.0

require (
	github.com/cloudevents/sdk-go/v2 v2.16.2
	github.com/messageloopio/messageloop/sdks/go v0.1.1
)
