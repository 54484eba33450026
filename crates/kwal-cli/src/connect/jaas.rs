//! The value of `sasl.jaas.config`: a login module, `required`, and options, as
//! `org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="secret";`.

/// User and password of a login by PLAIN or SCRAM. The error says what is wrong, without the secret.
pub(super) fn login(text: &str) -> Result<(String, String), String> {
    let (module, rest) = text.trim().split_once(char::is_whitespace).ok_or("it has no options")?;
    if !matches!(module.rsplit('.').next(), Some("PlainLoginModule" | "ScramLoginModule")) {
        return Err(format!("the login module {module} is neither PlainLoginModule nor ScramLoginModule"));
    }
    let (mut user, mut password) = (None, None);
    for (name, value) in options(rest)? {
        match name.as_str() {
            "username" => user = Some(value),
            "password" => password = Some(value),
            // As `serviceName`, or extensions that Kafka's own modules do not need.
            _ => {}
        }
    }
    user.zip(password).ok_or_else(|| "it takes username and password".to_owned())
}

/// The options behind the control flag, up to the semicolon.
fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let (flag, mut rest) = text.trim_start().split_once(char::is_whitespace).ok_or("it has no options")?;
    if !matches!(flag, "required" | "requisite" | "sufficient" | "optional") {
        return Err("the login module is not followed by `required`".to_owned());
    }
    let mut options = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix(';') {
            return match end.trim() {
                "" => Ok(options),
                _ => Err("there is more than one login module".to_owned()),
            };
        }
        let (name, value) = rest.split_once('=').ok_or("it does not end with a semicolon")?;
        let (value, end) = value_of(value.trim_start())?;
        options.push((name.trim().to_owned(), value));
        rest = end;
    }
}

/// A quoted or bare value, and what follows it.
fn value_of(text: &str) -> Result<(String, &str), String> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''));
    let Some(quote) = quote else {
        let end = text.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c if c == quote => return Ok((value, &text[at + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    Err("a quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins() {
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
        for (text, user, password) in [
            (format!(r#"{plain} required username="alice" password="a secret";"#), "alice", "a secret"),
            (format!(r#"{scram} required username='bob' password="q\"uo;te";"#), "bob", "q\"uo;te"),
            (format!("{scram}\n  required\n username=eve\n tokenauth=true password=x ; "), "eve", "x"),
        ] {
            assert_eq!(login(&text), Ok((user.to_owned(), password.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_wrong() {
        for (text, problem) in [
            ("", "it has no options"),
            ("PlainLoginModule", "it has no options"),
            ("PlainLoginModule required", "it has no options"),
            ("PlainLoginModule username=a password=b;", "the login module is not followed by `required`"),
            ("PlainLoginModule required username=a password=b", "it does not end with a semicolon"),
            ("PlainLoginModule required username=a;", "it takes username and password"),
            ("PlainLoginModule required username=\"a", "a quote is not closed"),
            ("PlainLoginModule required username=a; X required y=z;", "there is more than one login module"),
            (
                "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true;",
                "the login module com.sun.security.auth.module.Krb5LoginModule is neither PlainLoginModule nor ScramLoginModule",
            ),
        ] {
            assert_eq!(login(text), Err(problem.to_owned()), "{text}");
        }
    }
}
