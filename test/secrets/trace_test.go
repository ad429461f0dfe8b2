//go:build linux

package secrets_test

import (
	"io"
	"net/http"
	"net/http/httptest"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// newCollector takes the nodes' spans, and keeps them as they came and as text.
func (s *scene) newCollector() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &in)
		}
		text, terr := protojson.Marshal(&in)
		if err != nil || terr != nil {
			s.t.Error(err, terr)
		}
		s.spans.Write(body)
		s.spans.Write(append(text, '\n'))
	}))
	s.t.Cleanup(srv.Close)
	s.collector = srv.URL
}
