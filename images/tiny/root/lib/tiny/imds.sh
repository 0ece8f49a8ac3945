# Instance metadata, version 2 (session tokens); sourced by init and by /bin/imds.
#
# busybox's wget cannot PUT, so requests go through nc. Its standard input is a pipe that never ends: nc would shut
# its sending side down at an end of file, and some servers take that for a client that left.

imds_address=169.254.169.254
imds_folder=/run/imds.$$
imds_token=

# imds_request METHOD PATH HEADER: leaves the reply in $imds_folder/reply; succeeds if one came
imds_request() {
	[ -d $imds_folder ] || { mkdir $imds_folder && mkfifo $imds_folder/request; }
	exec 4<>$imds_folder/request
	printf '%s /latest/%s HTTP/1.0\r\nHost: %s\r\n%s\r\nContent-Length: 0\r\n\r\n' "$1" "$2" $imds_address "$3" >&4
	nc -w 3 $imds_address 80 <&4 >$imds_folder/reply 2>/dev/null
	exec 4>&-
	[ -s $imds_folder/reply ]
}

# Moves past the reply's headers on standard input, setting imds_status; what follows on it is the body.
imds_skip_headers() {
	read -r _ imds_status _
	while read -r imds_header && [ ${#imds_header} -gt 1 ]; do :; done
}

# imds_take_token: succeeds when the service answered, with or without a token (one that knows none says 4xx)
imds_take_token() {
	imds_request PUT api/token "X-aws-ec2-metadata-token-ttl-seconds: 21600" || return
	{
		imds_skip_headers
		[ "$imds_status" != 200 ] || read -r imds_token
	} <$imds_folder/reply
	[ "$imds_status" -lt 500 ]
}

# imds_open: takes a token, waiting for a service that does not answer yet (5 s of refusals, longer for silence)
imds_open() {
	imds_tries=0
	until imds_take_token; do
		imds_tries=$((imds_tries + 1))
		[ $imds_tries -lt 100 ] || return 1
		read -r imds_uptime _ </proc/uptime
		[ "${imds_uptime%.*}" -lt 45 ] || [ $imds_tries -lt 3 ] || return 1
		usleep 50000
	done
}

# imds_get PATH: sets imds_status and, to the first line of the body, imds_line; succeeds on 200
imds_get() {
	imds_line=
	imds_request GET "$1" "X-aws-ec2-metadata-token: $imds_token" || return
	{
		imds_skip_headers
		read -r imds_line
	} <$imds_folder/reply
	[ "$imds_status" = 200 ]
}

# imds_copy_body FILE, imds_append_body FILE: the whole body of the last reply
imds_copy_body() { { imds_skip_headers && cat; } <$imds_folder/reply >"$1"; }
imds_append_body() { { imds_skip_headers && cat && echo; } <$imds_folder/reply >>"$1"; }
imds_print_body() { { imds_skip_headers && cat; } <$imds_folder/reply; }
imds_close() { rm -rf $imds_folder; }
