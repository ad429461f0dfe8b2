package wire

import "regexp"

const redacted = "[redacted]"

// secrets are where a URL, a header or a connection string of ours carries what no log
// may. What is in front stays, so that one sees what was there.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`(?i)((?:` + HeaderAPIKey + `|Authorization)"?:[ \[]?"?)[^\r\n"\]\\]+`),
	regexp.MustCompile(`(?i)((?:^|[^A-Za-z0-9_]|%[0-9A-F]{2})(?:` + ParamBridgeToken + `|` + ParamSignature + `|` + ParamOnce +
		`|sig|SharedAccessKey|access_token|id_token|refresh_token|client_secret)(?:=|%3D))[^&\s"'<>;,\\]+`),
	regexp.MustCompile(`(?i)(\b(?:Bearer|Basic) +)[A-Za-z0-9._~+/=-]+`),
}

// Redact takes secrets out of text from elsewhere that is to be logged or shown: errors
// that quote a URL, a panic that quotes a request.
func Redact(s string) string {
	for _, secret := range secrets {
		s = secret.ReplaceAllString(s, "${1}"+redacted)
	}
	return s
}
