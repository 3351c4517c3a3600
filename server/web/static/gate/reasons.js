// Words for every verdict and for every refusal of a scan: what it is, and what to do about it.
// The codes are those of server/domain/redemption.py and server/domain/errors.py.

import {register, t, knows} from "../words.js";

register({
  // the four faces of a scan
  face_go: ["放行", "LET IN"],
  face_stop: ["拒绝", "REFUSED"],
  face_wait: ["待定", "NOT DECIDED"],
  face_check: ["核验中", "CHECKING"],
  why_check: ["请稍候。", "One moment."],
  why_wait: ["还没有结果，请先不要放行。", "No answer yet. Do not let in yet."],
  do_wait: ["已保存，正在自动重试。请游客稍等。", "It is kept and tried again by itself. Ask the visitor to wait."],
  why_full: ["等待发送的扫码太多（{count}），这一次没有保存。", "Too many scans are waiting ({count}): this one was not kept."],
  do_full: ["请恢复网络后再扫。", "Bring the network back, then scan again."],

  // verdicts
  QR_MALFORMED: ["这不是门票二维码", "This is not a ticket's code"],
  do_QR_MALFORMED: ["请游客打开门票，出示票面上的二维码。", "Ask the visitor to open the ticket and show its code."],
  QR_TAMPERED: ["二维码被改动过", "This code was changed or forged"],
  do_QR_TAMPERED: ["请游客打开自己的门票重新出示。", "Ask to see the code inside the visitor's own ticket page."],
  QR_EXPIRED: ["二维码已过期", "This code has run out"],
  do_QR_EXPIRED: ["二维码会自动更新：请出示实时二维码，截图无效。", "It renews itself: ask for the live code, not a screenshot."],
  QR_UNKNOWN_KEY: ["二维码不是本系统签发", "This code was not issued here"],
  do_QR_UNKNOWN_KEY: ["请游客刷新门票页面后重新出示。", "Ask the visitor to reload the ticket page and show it again."],
  TICKET_NOT_FOUND: ["没有这张票", "There is no such ticket"],
  do_TICKET_NOT_FOUND: ["请游客到服务台处理。", "Send the visitor to the service desk."],
  TICKET_NOT_VALID: ["这张票现在不可用", "This ticket is not valid now"],
  do_TICKET_NOT_VALID: ["请游客到服务台处理。", "Send the visitor to the service desk."],
  TICKET_NOT_VALID_VOID: ["这张票已作废", "This ticket was cancelled"],
  TICKET_NOT_VALID_NOT_YET_VALID: ["这张票还没到使用日期", "This ticket is not valid yet"],
  TICKET_NOT_VALID_EXPIRED: ["这张票已过有效期", "This ticket's validity is over"],
  WRONG_FUNCTION: ["这张票不含：{function}", "This ticket does not include: {function}"],
  do_WRONG_FUNCTION: ["请看下面这张票包含的项目。", "What it does include stands below."],
  VENUE_NOT_FOUND: ["服务器上已没有这个场地", "The server does not know this venue any more"],
  do_VENUE_NOT_FOUND: ["请点“更换”，重新选择场地。", "Press Change and choose the venue again."],
  WRONG_VENUE_FUNCTION: ["此场地不检：{function}", "Not checked at this venue: {function}"],
  do_WRONG_VENUE_FUNCTION: ["请点“更换”，重新选择项目。", "Press Change and choose what is checked here."],
  ALREADY_REDEEMED: ["这个二维码已用过", "This code was used already"],
  do_ALREADY_REDEEMED: ["还有剩余次数：请出示更新后的二维码。", "Uses are left: ask for the renewed code."],
  do_ALREADY_REDEEMED_0: ["这个项目的次数已用完。", "No uses are left for it."],
  NO_REMAINING: ["次数已用完：{function}", "No uses left: {function}"],
  do_NO_REMAINING: ["请看下面的剩余次数。", "What is left stands below."],

  // what is no verdict: nothing was decided
  SCAN_ID_CONFLICT: ["这次扫码的编号已被占用", "This scan's number was taken"],
  VALIDATION_FAILED: ["服务器看不懂这次扫码", "The server did not understand this scan"],
  INVALID_JSON: ["服务器看不懂这次扫码", "The server did not understand this scan"],
  BAD_REQUEST: ["服务器看不懂这次扫码", "The server did not understand this scan"],
  BODY_TOO_LARGE: ["扫到的内容太长", "What was scanned is too long"],
  UNSUPPORTED_MEDIA_TYPE: ["服务器看不懂这次扫码", "The server did not understand this scan"],
  REQUEST_TIMEOUT: ["网络太慢。", "The network is too slow."],
  INTERNAL: ["服务器出了意外。", "Something failed on the server."],
  OVERLOADED: ["服务器繁忙。", "The server is very busy."],
  DEADLINE_PASSED: ["服务器太慢,还没有判定。", "The server is too slow to decide."],
  BACKLOG_FULL: ["服务器的记录跟不上。", "The server's record is too far behind."],
  GATE_CLOSED: ["服务器正在准备数据。", "The server is loading its tickets."],
  REDIS_UNAVAILABLE: ["服务器的数据库没有回应。", "The server's database does not answer."],
  NOT_ACKNOWLEDGED: ["判定还没有安全保存。", "The decision is not safely stored yet."],
  NOT_RECORDED_YET: ["票还没有写入记录。", "The ticket is not in the record yet."],
  POSTGRES_UNAVAILABLE: ["服务器的记录没有回应。", "The server's record does not answer."],
  do_fault: ["请再扫一次。若仍不行，请告诉管理员：{code}", "Scan again. If it stays, tell an administrator: {code}"],
  fault: ["服务器没有判定这次扫码", "The server did not judge this scan"],

  // why one has to log in (again)
  LOGIN_FAILED: ["用户名或密码不对，或账号已停用。", "User name or password is wrong, or the account is disabled."],
  TOO_MANY_ATTEMPTS: ["尝试次数太多。请等 {seconds} 秒再登录。", "Too many attempts. Wait {seconds} s, then log in."],
  TOKEN_EXPIRED: ["登录已过期，请重新登录。", "Your session is over. Log in again."],
  TOKEN_INVALID: ["登录已失效，请重新登录。", "Your session does not hold any more. Log in again."],
  TOKEN_REQUIRED: ["请重新登录。", "Please log in again."],
  OPERATOR_DISABLED: ["你的账号已停用，或密码已更改。请找主管。", "Your account was disabled, or has a new password. Ask your supervisor."],
  FORBIDDEN: ["这个账号不是检票账号。请用检票账号登录。", "This account is not for gates. Log in with a gate account."],

  // what a verdict adds
  left_title: ["剩余次数", "What is left"],
  left: ["剩 {left} / {total}", "{left} of {total}"],
  first_title: ["首次使用", "First used"],
  first_here: ["本机", "this device"],
  first_device: ["设备 {end}", "device …{end}"],
  close: ["关闭", "Close"],
  next: ["可直接扫下一位", "Ready for the next scan"],
});

/** What a code is called; a code that has no words yet is shown itself. */
export const reason = (code, filling) => (knows(code) ? t(code, filling) : `${t("fault")} (${code})`);

/**
 * An answer (or fault) in words: {kind: go | stop | wait, face, why, advice}.
 * Green has one source only: a server's "success".
 */
export function reading(answer, functionLabel) {
  if (answer.result === "success") return {kind: "go", face: t("face_go"), why: "", advice: ""};
  if (answer.result !== "reject") {
    return {kind: "wait", face: t("face_wait"), why: reason(answer.fault), advice: t("do_fault", {code: answer.fault})};
  }
  const finer = `${answer.reason}_${answer.ticket_status}`;
  const advice = answer.remaining_uses === 0 && knows(`do_${answer.reason}_0`) ? `do_${answer.reason}_0` : `do_${answer.reason}`;
  return {
    kind: "stop",
    face: t("face_stop"),
    why: reason(knows(finer) ? finer : answer.reason, {function: functionLabel}),
    advice: knows(advice) ? t(advice) : "",
  };
}
