package wire

import "regexp"

// secrets are what a URL, a header or a connection string of ours carries and no log may.
// The name stays, so that one sees what was there.
var secrets = regexp.MustCompile(`(?i)\b(` + ParamBridgeToken + `|` + ParamSignature + `|sig|SharedAccessKey|access_token|id_token|refresh_token|client_secret)(=|%3D)[^&\s"'<>;,\\]+` +
	`|(` + HeaderAPIKey + `|Authorization|Proxy-Authorization)("?: ?|":"|=|:\[)[^\r\n"\]\\]+` +
	`|\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]+`)

// Redact takes secrets out of text from elsewhere that is to be logged or shown: errors
// that quote a URL, a panic that quotes a request.
func Redact(s string) string {
	return secrets.ReplaceAllStringFunc(s, func(found string) string {
		m := secrets.FindStringSubmatch(found)
		return m[1] + m[2] + m[3] + m[4] + m[5] + "[redacted]"
	})
}
